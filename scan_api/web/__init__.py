"""The shopper's pages: plain HTML rendered on the server, in Chinese and English, needing no JavaScript."""
