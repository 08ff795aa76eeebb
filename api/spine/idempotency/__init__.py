"""`Idempotency-Key`: the same request sent twice does its work once."""
