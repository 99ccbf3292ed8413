"""What is fast, and by how much: each module measures one thing beside what a user would have instead, in one run."""
