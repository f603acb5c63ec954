"""Steps from one shape of the registry file to the next, run by alembic when an older file is opened."""
