// node node.mjs FOLDER MODULE: runs FOLDER/jobs.json in onnxruntime-node and writes FOLDER/results.json.

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { runJobs } from "./jobs.mjs";

const [folder, modules] = process.argv.slice(2);
const ort = createRequire(join(modules, "here.js"))("onnxruntime-node");
const jobs = JSON.parse(readFileSync(join(folder, "jobs.json"), "utf8"));
const options = { intraOpNumThreads: 1, logSeverityLevel: 3 };
const results = await runJobs(ort, jobs, (job) => ort.InferenceSession.create(join(folder, job.model), options));
writeFileSync(join(folder, "results.json"), JSON.stringify(results));
