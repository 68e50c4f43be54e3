"""What the learned schedulers share: what they see, do, are paid, practise on and compute with."""
