"""Where mail leaves: routes, destinations, and the sites that mail is sent to.

1. `routes.py` finds the route of a recipient's domain: a static table, a relay, or its MX.
2. `destinations.py` turns the domain into a destination: which site, which hosts in which
   order, or why there is none (null MX, no such domain, DNS down).
3. `site.py` holds one site's ready parcels by lane and its connections. A site that cannot
   be reached is suspended as a whole; a burst in one lane never takes the connections of
   a lane above it.

A *site* is the set of hosts that answer for a destination: a thousand domains with the same
MX hosts are one site, with one limit and one health.
"""
