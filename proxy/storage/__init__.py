"""What must last: users, keys, preferences, credentials, versions of the configuration, and the audit log, in SQLite or PostgreSQL.

SQLAlchemy and Alembic are imported by this room only, and this room only where storage is used: they take longer to import than the gateway
takes to start. `identities` and `kept` do without both.
"""
