"""`Idempotency-Key`: a request that is sent twice does its work once."""
