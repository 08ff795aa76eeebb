"""What all routes share: dependencies, request ids, limits, the error envelope, the OpenAPI document."""
