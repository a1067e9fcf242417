"""One router an audience. Routers translate between HTTP and the domain; they hold no SQL and no rules."""
