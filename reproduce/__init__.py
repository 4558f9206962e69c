"""The two papers' tables and figures on one's own models and data, and the record of ours."""
