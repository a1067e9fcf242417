"""The domain-free ground floor: settings, database sessions, clock, ids, field encryption, outbox, logging, errors."""
