// How sure is a network of an image? Runs a file of monte_carlo, written for onnxruntime-web or onnxruntime-node.

/**
 * Returns the statistics of one image's draws: {mean, entropy, ...}, each a tensor of a batch of one.
 *
 * ort: onnxruntime-web or onnxruntime-node. image: {data: Float32Array, dims}, the first size 1.
 * The same step gives the same masks, here and in every other runtime.
 */
export async function uncertainty(ort, session, image, { samples = 31, step = 0 } = {}) {
  const integer = (value) => new ort.Tensor("int64", BigInt64Array.of(BigInt(value)), [1]);
  const input = session.inputNames.find((name) => name !== "samples" && name !== "step");
  return session.run({
    [input]: new ort.Tensor("float32", image.data, image.dims),
    samples: integer(samples),
    step: integer(step),
  });
}

/** Returns the likeliest class of each pixel. mean: a tensor [1, classes, height, width]. */
export function prediction({ data, dims: [, classes, height, width] }) {
  const size = height * width;
  return Float32Array.from({ length: size }, (_, pixel) => {
    let best = 0;
    for (let each = 1; each < classes; ++each) if (data[each * size + pixel] > data[best * size + pixel]) best = each;
    return best;
  });
}

/** Paints a map of numbers in grey, `most` and more in white; canvas has a pixel a number. */
export function paint(canvas, values, most) {
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  values.forEach((value, index) => {
    const grey = Math.round(255 * Math.min(1, Math.max(0, value / most)));
    pixels.data.set([grey, grey, grey, 255], 4 * index);
  });
  context.putImageData(pixels, 0, 0);
}
