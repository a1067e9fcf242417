"""What happened to items: events recorded once, read back in the terms of EPCIS 2.0."""
