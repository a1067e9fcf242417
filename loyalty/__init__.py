"""Members and what they earn: cards, one-time codes, the ledger, campaigns, benefits, fulfilment."""
