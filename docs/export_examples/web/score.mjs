// Scores PNG files with an exported ONNX file, in a browser; of onnxruntime-web and fast-png alone.

import { decode } from "fast-png";
import * as ort from "onnxruntime-web";

/** From the URL of model.onnx, beside which is model.json, to a function from PNG bytes to a score. */
export async function openModel(url) {
  const session = await ort.InferenceSession.create(url);
  const says = await (await fetch(url.replace(/onnx$/, "json"))).json();
  if (!says.inside.includes("resize")) throw new Error(`${url} takes images of one size; export it with any_size`);
  return async (bytes) => {
    const image = read(bytes, says.intensity_window);
    const { pred_score: score } = await session.run({ [says.input.name]: image });
    return score.data[0];
  };
}

/** A PNG of 8 or 16 bits, grey or colour, as the graph takes it: (1, 3, height, width) in [0, 1]. */
function read(bytes, windowOf16Bits) {
  const { width, height, channels, depth, palette, data } = decode(bytes);
  if (palette || depth < 8) throw new Error("a palette, or fewer than 8 bits: save it as grey or colour of 8 or 16 bits");
  if (depth === 16 && !windowOf16Bits) throw new Error("16 bits, of which the model does not say what they mean");
  const [low, high] = depth === 16 ? windowOf16Bits : [0, 255];
  const size = width * height;
  const pixels = new Float32Array(3 * size);
  for (let channel = 0; channel < 3; channel++) {
    const from = channels < 3 ? 0 : channel;
    for (let index = 0; index < size; index++) {
      const placed = (data[index * channels + from] - low) / (high - low);
      pixels[channel * size + index] = Math.min(Math.max(placed, 0), 1);
    }
  }
  return new ort.Tensor("float32", pixels, [1, 3, height, width]);
}
