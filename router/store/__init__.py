"""Everything that is SQL: the vector cache, the ledger, usage, policies, collections and jobs, in three SQLite files.

A store's methods take and return values of the domain, so that another database can take its place."""
