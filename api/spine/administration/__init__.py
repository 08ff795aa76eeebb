"""What administrators do: keys, the audit trail, and the rotation of the key for secrets."""
