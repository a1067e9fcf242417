"""Cases of the offline SDK's test vectors, as `tests.offline_sdk.make_vectors` writes them."""
