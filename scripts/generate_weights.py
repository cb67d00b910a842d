"""Map ImageNet VGG-16 weights to planar 3D kernels: weights/planar_3d_vgg.weights.h5."""

from planar3d.cli import main, weights

if __name__ == "__main__":
    main(weights)
