/* Classifies images with a network of a .wiring file, without Python.
 *
 *     classify NETWORK.wiring IMAGES
 *
 * IMAGES: float32 images, (images, channels, height, width), as they are in memory, normalised as in training. */
#include <stdio.h>
#include <stdlib.h>

#include "wirings.h"

#define THREADS 2

static int fail(const char* name, const char* reason) {
  fprintf(stderr, "%s: %s\n", name, reason);
  return 1;
}

int main(int count, char** names) {
  wirings_network* network;
  int64_t in[3], out[3], images = 0;
  if (count != 3) return fail(names[0], "give the files of a network and of images");
  if (wirings_open_file(names[1], &network)) return fail(names[1], wirings_error());
  if (wirings_input_shape(network, 0, in) || wirings_output_shape(network, 0, out))
    return fail(names[1], wirings_error());
  const size_t pixels = in[0] * in[1] * in[2], classes = out[0] * out[1] * out[2];

  FILE* file = fopen(names[2], "rb");
  if (!file) return fail(names[2], "cannot be opened");
  float* batch = NULL;
  while (1) { /* all images of the file */
    float* larger = realloc(batch, sizeof(float) * pixels * (images + 1));
    if (!larger) return fail(names[2], "there is not enough memory");
    batch = larger;
    if (fread(batch + pixels * images, sizeof(float), pixels, file) != pixels) break;
    ++images;
  }
  fclose(file);
  if (!images) return fail(names[2], "holds no whole image");

  float* logits = malloc(sizeof(float) * classes * images);
  if (!logits) return fail(names[2], "there is not enough memory");
  const float* inputs[] = {batch};
  float* outputs[] = {logits};
  if (wirings_run(network, inputs, outputs, images, THREADS)) return fail(names[1], wirings_error());
  for (int64_t image = 0; image < images; ++image) {
    const float* row = logits + classes * image;
    size_t best = 0;
    for (size_t class = 1; class < classes; ++class)
      if (row[class] > row[best]) best = class;
    printf("image %lld: class %zu (%g)\n", (long long)image, best, row[best]);
  }
  wirings_close(network);
  free(batch);
  free(logits);
  return 0;
}
