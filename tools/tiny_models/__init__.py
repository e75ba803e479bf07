"""How the models that ship in ``backend/embedded`` came about: their worlds, their trainings, what measures them."""
