"""Alerts: the channels they go to, their deliveries, and the alerts that Spine raises for failed and late runs."""
