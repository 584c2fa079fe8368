#!/usr/bin/env node
import { createRequire } from 'node:module';

/** Programs beside this one: a VM waits for `run`, which Node need not read the other commands for. */
createRequire(import.meta.filename)(process.argv[2] === 'run' ? './run-main.js' : './commands-main.js');
