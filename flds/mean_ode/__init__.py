"""The Neural Mean ODE of paper H: blocks, problem, solvers and regimes."""
