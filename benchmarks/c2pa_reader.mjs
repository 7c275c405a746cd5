// What a second, independent implementation of C2PA says of our files, whole and with one bit changed.
//
//     npm install @trustnxt/c2pa-ts && node benchmarks/c2pa_reader.mjs FILE... > results/c2pa_reader.json
import { execFileSync } from 'node:child_process';
import fs from 'node:fs/promises';
import { basename } from 'node:path';
import { pathToFileURL } from 'node:url';

const home = `${process.cwd()}/node_modules/@trustnxt/c2pa-ts`;
const part = name => import(pathToFileURL(`${home}/dist/${name}/index.js`));
const { BMFF, JPEG, PNG } = await part('asset');
const { SuperBox } = await part('jumbf');
const { ManifestStore, ValidationResult } = await part('manifest');
BMFF.canReadBrands.add('isom'); // it reads the boxes of any such file, but by itself takes HEIC pictures alone

async function read(content) {
    let result;
    try {
        const asset = new ([JPEG, PNG, BMFF].find(kind => kind.canRead(content)))(content);
        result = await ManifestStore.read(SuperBox.fromBuffer(asset.getManifestJUMBF())).validate(asset);
    } catch (error) {
        result = ValidationResult.fromError(error);
    }
    return { valid: result.isValid, said: result.statusEntries.map(entry => entry.code) };
}

const files = {};
for (const path of process.argv.slice(2)) {
    const content = await fs.readFile(path);
    const changed = Buffer.from(content);
    changed[Math.floor(0.9 * changed.length)] ^= 1; // among the pictures
    files[basename(path)] = { whole: await read(content), one_bit_changed: await read(changed) };
}
const { name, version } = JSON.parse(await fs.readFile(`${home}/package.json`));
const here = new URL('.', import.meta.url).pathname;
const commit = execFileSync('git', ['-C', here, 'rev-parse', 'HEAD'], { encoding: 'utf8' }).trim();
const command = `node benchmarks/c2pa_reader.mjs ${Object.keys(files).join(' ')}`;
const date = new Date().toISOString().slice(0, 10);
console.log(JSON.stringify({ command, date, commit, reader: `${name} ${version}`, node: process.version, files }, null, 2));
