"""The database layer: connecting, migrating, loading SQL objects, accounts and grants, validation."""
