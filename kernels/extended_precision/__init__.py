"""Extended-precision GEMM (EGEMM-TC): float32 accuracy from products of halves on tensor cores."""
