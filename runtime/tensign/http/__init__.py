"""The HTTP faces, MLflow's and Azure ML's, over the same models as gRPC's."""
