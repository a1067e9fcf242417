"""The only home of private keys: custody, key life cycle, signing, trust-bundle publication."""
