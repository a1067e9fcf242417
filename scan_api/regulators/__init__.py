"""Regulators: who may look at what, the record of every look, recall orders, statistics and exports; and partners."""
