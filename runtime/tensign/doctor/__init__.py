"""What can run on this machine, what is missing, and how to get it; nothing that is looked at is imported."""
