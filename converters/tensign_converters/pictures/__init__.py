"""What is the same for every network of pictures: the steps before it, the activation behind it, the graph of them all."""
