"""What training minimises: losses of rays against the teacher's pictures, and of samples against its features."""
