"""What runs flows: the worker of type `spine`, and the fork servers that it starts runs from."""
