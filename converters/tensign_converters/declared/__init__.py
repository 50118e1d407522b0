"""What a user declares of a network whose file says nothing of its pictures."""
