"""What every request and answer has in common: ids, limits, the error envelope, the OpenAPI document."""
