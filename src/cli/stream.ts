import { Option, type Command } from 'commander';
import { ShimError } from '../error.ts';
import { checkFileName } from './file-name.ts';
import { print } from './output.ts';
import { table } from './table.ts';
import { carriedOut } from './transfer.ts';
import type { ListedDevice, StreamAction, StreamResult } from './transfer-control.ts';

interface Options {
  readonly extract?: string;
  readonly replace?: string;
  readonly toLayout?: string;
  readonly output?: string;
  readonly force?: true;
  readonly json?: true;
  readonly verbose?: true;
}

export function add(program: Command): void {
  program
    .command('stream')
    .description("the VFIO devices in a file of QEMU's migration: lists them, takes a state out, puts one in, converts")
    .argument('<file>', 'what QEMU has written by "migrate exec:cat > FILE" or "migrate file:FILE"')
    .addOption(
      new Option('--extract <device>', "write the device's state to a state file").conflicts(['replace', 'toLayout']),
    )
    .addOption(
      new Option('--replace <device=state>', 'write the file with the state of a state file in it').conflicts(
        'toLayout',
      ),
    )
    .addOption(new Option('--to-layout <layout>', 'write a file of QEMU 5.2 as later ones load it').choices(['6.2']))
    .option('-o, --output <new>', 'the file to make: it appears when it is complete, readable for its owner only')
    .option('--force', 'replace NEW if it exists')
    .option('--json', 'print the result as a line of JSON')
    .option('-v, --verbose', 'log what is done, on stderr')
    .addHelpText('after', help)
    .action(async (file: string, options: Options) => {
      checkFileName('stream', file);
      const action = actionOf(options);
      const { force = false, verbose = false, json = false } = options;
      const result = await carriedOut({ command: 'stream', file, action, force, verbose }, json);
      if (result?.command === 'stream') print(json ? `${JSON.stringify(result)}\n` : inWords(result));
    });
}

function actionOf({ extract, replace, toLayout, output }: Options): StreamAction {
  const option = extract === undefined ? (replace === undefined ? '--to-layout' : '--replace') : '--extract';
  if (extract === undefined && replace === undefined && toLayout === undefined) {
    if (output === undefined) return { what: 'list' };
    throw wrong('--output says where to; give --extract, --replace or --to-layout too');
  }
  if (output === undefined) throw wrong(`${option} needs --output NEW`);
  checkFileName('--output', output);
  if (extract !== undefined) return { what: 'extract', device: extract, output };
  if (replace === undefined) return { what: 'convert', output };
  const [, device, state] = /^([^=]+)=(.*)$/s.exec(replace) ?? [];
  if (device === undefined || state === undefined) throw wrong(`--replace ${replace}: is not DEVICE=STATE`);
  checkFileName('--replace', state);
  return { what: 'replace', device, state, output };
}

function wrong(message: string): ShimError {
  return new ShimError('ERR_ARGUMENT', `stream: ${message}`);
}

function inWords(result: StreamResult): string {
  switch (result.action) {
    case 'list':
      return listing(result);
    case 'extract': {
      const { device, file, output, protocol, bytes, buffers, sha256, identity } = result;
      const known = Object.entries(identity).map(([name, value]) => `${name} ${value}`);
      return table([
        ['device', `${device} in ${file}`],
        ['file', output],
        ['protocol', protocol ?? UNKNOWN_PROTOCOL],
        ['data', `${bytes} bytes in ${buffers} buffers`],
        ['identity', known.length === 0 ? 'not known' : `${known.join(', ')}; nothing else is known`],
        ['sha256', sha256],
      ]);
    }
    case 'replace': {
      const { device, file, state, output, bytes, buffers } = result;
      return table([
        ['device', `${device} in ${file}`],
        ['state', state],
        ['file', output],
        ['data', `${bytes} bytes in ${buffers} buffers`],
      ]);
    }
    case 'convert':
      return table([
        ['file', result.output],
        ['layout', '6.2, from 5.2'],
        ['devices', result.devices.join(', ')],
      ]);
  }
}

const UNKNOWN_PROTOCOL = 'v1 or v2: QEMU 6.2 and later write both alike';

const LAYOUTS = {
  '5.2': '5.2: the configuration lies in the END section, only QEMU 5.2 loads it',
  '6.2': '6.2: the configuration lies in a FULL section, as of QEMU 6.2 and later',
} as const;

function listing(found: StreamResult & { action: 'list' }): string {
  const { file, bytes, machine, capabilities, mappedRam, described, devices } = found;
  const head = table([
    ['file', `${file}, ${bytes} bytes`],
    ['machine', machine === '' ? 'not named' : machine],
    ['capabilities', capabilities.join(' ') || undefined],
    ['RAM', mappedRam ? 'mapped: each page has its place in the file' : undefined],
    ['description', described ? 'at the end' : 'none at the end: the file is cut short, or the machine writes none'],
  ]);
  if (devices.length === 0) return `${head}\nNo VFIO device.\n`;
  return [head, ...devices.map(deviceInWords)].join('\n');
}

function deviceInWords(found: ListedDevice): string {
  const { device, instanceId, id, subsystem, layout, protocol, sections } = found;
  const { dataBytes, dataRecords, configBytes, configOffset, flags, begin, end } = found;
  const data = `${dataBytes} bytes in ${dataRecords} ${dataRecords === 1 ? 'record' : 'records'}`;
  const counts = Object.entries(sections).filter(([, count]) => count > 0);
  return table([
    ['device', instanceId === 0 ? device : `${device}, instance ${instanceId}`],
    ['id', id === null ? undefined : `${id}, subsystem ${subsystem}`],
    [
      'state',
      layout === null ? 'elsewhere: it went through multifd channels, and is not in this file' : 'in this file',
    ],
    ['layout', layout === null ? undefined : LAYOUTS[layout]],
    ['protocol', protocol ?? UNKNOWN_PROTOCOL],
    ['data', layout === null ? `${data}, of pre-copy only` : data],
    ['configuration', configOffset === null ? undefined : `${configBytes} bytes at offset ${configOffset}`],
    ['sections', counts.map(([kind, count]) => `${count} ${kind.toUpperCase()}`).join(', ')],
    ['flags', flags.join(' ')],
    ['where', `offsets ${begin} to ${end}`],
  ]);
}

const help = `
Without an option that makes a file, it lists the devices. DEVICE is a device's name there, with or without its "/vfio", and with
#INSTANCE if several have the name.

A migration file tells of a device its PCI ids, as the guest sees them, and its data. So a state that was extracted has these
as its identity: "restore" compares them, and leaves everything else to the driver. --replace compares them as well. Which
protocol the data was saved by is not told by a file of QEMU 6.2 to 7.2; where that is so, the state file says v1.

--to-layout 6.2 takes each device's configuration out of its END section, where QEMU 5.2 writes and reads it, into a FULL section
at the end. QEMU's other sections stay as they are: whether a QEMU loads those, it says itself.

FILE is read as it lies there, in pieces: it may be larger than memory. It is a path, as what describes it comes last.

Example:
  vfio-shim stream vm.mig && vfio-shim stream vm.mig --extract 0000:00:04.0 -o qat.state`;
