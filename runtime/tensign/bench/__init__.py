"""The load generator: arrivals, sender, samples, report; search, comparison, tables and pictures over them."""
