"""FINRA OTC transparency: weekly volume of over-the-counter trading by security and venue."""
