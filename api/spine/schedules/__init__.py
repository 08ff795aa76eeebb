"""`/api/v1/schedules`: Prefect deployments with a schedule."""
