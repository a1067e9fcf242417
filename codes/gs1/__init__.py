"""The GS1 system's own tables: Application Identifiers, what each may hold, and the code lists they refer to."""
