"""The endpoints, one file a resource; each ends in its `OPERATIONS`."""
