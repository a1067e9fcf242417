"""The transparency log of this installation: what gives records their place in the tree, signs, serves and proves.

docs/transparency-log.md; formats and proofs are in `offline_sdk.transparency`, records wait in `codes.log_queue`.
"""
