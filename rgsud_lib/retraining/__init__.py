"""When new rain is worth a training, and which model that training follows."""
