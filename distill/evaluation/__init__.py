"""How good a student is: metrics, pictures, speed, and parity with its teacher."""
