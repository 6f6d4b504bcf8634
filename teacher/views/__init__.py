"""Views of a teacher: what training and evaluation compare a student with."""
