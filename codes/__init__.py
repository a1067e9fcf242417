"""What a brand orders: brands and products, code orders, serials, the generation pipeline, QR symbols, exports."""
