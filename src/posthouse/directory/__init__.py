"""Who receives mail here: domains, accounts, aliases, groups, and how each is set."""
