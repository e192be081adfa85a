// Runs jobs in onnxruntime-node or onnxruntime-web: both have the same interface. See javascript.py for the format.

const ARRAYS = {
  bool: Uint8Array,
  float16: Uint16Array,
  float32: Float32Array,
  int64: BigInt64Array,
};

function bytesOf(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

function textOf(array) {
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}

function tensorOf(ort, { type, dims, data }) {
  const bytes = bytesOf(data);
  return new ort.Tensor(type, new ARRAYS[type](bytes.buffer), dims);
}

async function runJob(ort, job, open) {
  const session = await open(job);
  const runs = [];
  for (const feeds of job.runs) {
    const given = {};
    for (const [name, tensor] of Object.entries(feeds)) {
      if (session.inputNames.includes(name)) given[name] = tensorOf(ort, tensor);
    }
    const outputs = await session.run(given);
    const shown = {};
    for (const [name, { type, dims, data }] of Object.entries(outputs)) shown[name] = { type, dims, data: textOf(data) };
    runs.push(shown);
  }
  await session.release();
  return { inputs: session.inputNames, runs };
}

export async function runJobs(ort, jobs, open) {
  const results = {};
  for (const job of jobs) {
    try {
      results[job.id] = await runJob(ort, job, open);
    } catch (error) {
      results[job.id] = { error: String(error) };
    }
  }
  return results;
}
