import { vfio_region_info } from '../../abi/vfio-device.ts';
import { vfio_device_migration_info } from '../../abi/vfio-v1.ts';
import {
  VFIO_USER_DEVICE_FEATURE,
  VFIO_USER_DEVICE_GET_INFO,
  VFIO_USER_DEVICE_GET_REGION_INFO,
  VFIO_USER_DEVICE_RESET,
  VFIO_USER_DIRTY_PAGES,
  VFIO_USER_DMA_MAP,
  VFIO_USER_DMA_UNMAP,
  VFIO_USER_MIG_DATA_READ,
  VFIO_USER_MIG_DATA_WRITE,
  VFIO_USER_REGION_READ,
  VFIO_USER_REGION_WRITE_MULTI,
  VFU_PCI_DEV_MIGR_REGION_IDX,
  vfio_user_device_info,
  vfio_user_dma_map,
  vfio_user_dma_unmap,
  vfio_user_region_access,
  VFIO_USER_REGION_WRITE,
} from '../../abi/vfio-user.ts';
import { recover, stateName, type MigratableDevice } from '../../device/migratable.ts';
import { observe } from '../../device/observe.ts';
import { ShimError } from '../../error.ts';
import { bufferIn } from '../../v1/region.ts';
import { deviceInfo, findMigrationRegion } from '../../vfio/client/device-info.ts';
import { dmaLogOf } from '../../vfio/client/port-dma-log.ts';
import { addedRegionInfo } from '../../vfio/server/added-region.ts';
import { featureLog, type FeatureLog } from '../../vfio/server/feature-log.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import { sleepUntilReady, whenReady, type WaitForDevice } from '../../wait.ts';
import { identifySocket } from '../client/identify-socket.ts';
import type { Server } from '../client/server.ts';
import { SocketPort } from '../client/socket-port.ts';
import { inBody } from '../server/body.ts';
import type { Client } from '../server/client.ts';
import { answerFeature } from '../server/device-feature.ts';
import { infoArgument, regionAnswer } from '../server/device-info.ts';
import { answerRead, answerWrite } from '../server/migration-data.ts';
import {
  accessIn,
  accessReply,
  answerAccess,
  answerOne,
  writesIn,
  type RegionAccess,
  type RegionMemory,
} from '../server/region-access.ts';
import { closeFds, type Message } from '../wire/message.ts';
import { MAX_BODY } from '../wire/connection.ts';
import type { Recorded } from '../watch/message-recorder.ts';
import { allDirty, DirtyPagesLog } from './dirty-pages-log.ts';
import { DirtyTranslation } from './dirty-translation.ts';
import { asked, checkFeature, forward } from './forward.ts';
import { checkStateWrite } from './guarded-v1.ts';
import { MappedRanges } from './mapped-ranges.ts';
import { translate, type ForwardObserver, type Translation, type TranslationOptions } from './translation.ts';

const NOTHING = new Uint8Array(0);
const [, DATA_SIZE_AT] = vfio_device_migration_info.fields.data_size;

/** The reply to a command. `data`: the end of its body, if that lies elsewhere. */
interface Answered {
  readonly body: Uint8Array;
  readonly fds?: readonly number[];
  readonly data?: Uint8Array;
}

/** One client and its server: what is the migration's is translated or checked, everything else passes. */
export class ProxySession implements RegionMemory {
  readonly #client: Client;
  readonly #server: Server;
  readonly #port: SocketPort;
  /** The server's device; `undefined` if it does not migrate: then everything passes. */
  readonly #device: MigratableDevice | undefined;
  readonly #translation: Translation | undefined;
  readonly #mapped = new MappedRanges();
  readonly #log: FeatureLog | undefined;
  readonly #dirty: DirtyTranslation | undefined;
  /** The server's own migration region, and where one is that is shown. */
  readonly #own: number | undefined;
  readonly #shown: number | undefined;
  readonly #regions: number;
  /** The server's migration region is not shown, as v2 is. */
  readonly #hidesOwn: boolean;
  readonly #showsV2: boolean;
  readonly #recorder: ForwardObserver | undefined;
  /** The client migrates by what is translated. */
  #isTranslating = false;
  /** The client's last command moved data. */
  isMoving = false;

  constructor(client: Client, server: Server, options: TranslationOptions) {
    this.#client = client;
    this.#server = server;
    this.#port = new SocketPort(server);
    this.#recorder = options.recorder;
    try {
      const { recorder } = options;
      const found = identifySocket(this.#port);
      this.#device = found && recorder ? observe(found, (event) => recorder.driver(event)) : found;
      this.#regions = deviceInfo(this.#port).regions;
      const protocol = this.#device?.protocol;
      if (protocol === 'v1') this.#own = findMigrationRegion(this.#port)?.index;
      if (this.#device !== undefined) this.#translation = translate(this.#device, options);
      this.#shown = this.#translation?.region && (this.#own ?? Math.max(this.#regions, VFU_PCI_DEV_MIGR_REGION_IDX));
      if (protocol === 'v1') this.#log = featureLog(new DirtyPagesLog(server, this.#mapped, pageSizeOf(server)));
      else if (protocol === 'v2') {
        const log = dmaLogOf(this.#port);
        this.#log = log && featureLog(log);
        if (options.present !== 'v2') this.#dirty = new DirtyTranslation(log ?? allDirty(options.warn));
      }
    } catch (error) {
      this.#closeFiles();
      throw error;
    }
    this.#hidesOwn = this.#own !== undefined && options.present === 'v2';
    this.#showsV2 = options.present !== 'v1';
  }

  answer(message: Message): void {
    const access = this.#device === undefined ? undefined : accessOf(message);
    const at = access?.region === this.#shown ? access?.offset : undefined;
    this.isMoving = movesData(message, at);
    if (!this.isMoving) this.#translation?.somethingElse();
    const answered = this.#answered(message, access);
    if (answered !== undefined) {
      this.#client.reply(message, answered.body, answered.fds, answered.data);
      if (message.command === VFIO_USER_MIG_DATA_READ) this.#ahead(() => this.#translation?.readAhead());
      else if (message.command === VFIO_USER_REGION_READ && at === DATA_SIZE_AT)
        this.#ahead(() => this.#translation?.beginNext());
      return;
    }
    this.#recorder?.forwarded();
    forward(this.#server, this.#client, message);
  }

  get recorded(): Recorded {
    const protocol = this.#device?.protocol;
    const driver = protocol === 'v1' || protocol === 'v2' ? protocol : undefined;
    return { driver, protocol: driver, region: this.#shown ?? this.#own, section: this.#translation?.region };
  }

  /** The client has its answer: what fails now fails again when it asks for more. */
  #ahead(act: () => void): void {
    try {
      act();
    } catch (error) {
      if (!(error instanceof ShimError) || error.code === 'ERR_INTERRUPTED') throw error;
    }
  }

  /** What the proxy answers itself; `undefined` if the command is the server's. */
  #answered(message: Message, access: RegionAccess | undefined): Answered | undefined {
    const { command, body } = message;
    if (this.#device === undefined) return undefined;
    if (access !== undefined) return this.#access(message, access);
    switch (command) {
      case VFIO_USER_DEVICE_GET_INFO:
        return this.#info(message);
      case VFIO_USER_DEVICE_GET_REGION_INFO:
        return this.#regionInfo(body);
      case VFIO_USER_DMA_MAP:
      case VFIO_USER_DMA_UNMAP:
        return this.#map(message);
      case VFIO_USER_DIRTY_PAGES:
        return this.#dirty && { body: this.#dirty.answer(body) };
      case VFIO_USER_DEVICE_RESET:
        return this.#reset();
      case VFIO_USER_REGION_WRITE_MULTI:
        return this.#writes(message);
      default:
        return this.#migration(message);
    }
  }

  #info(message: Message): { body: Uint8Array } | undefined {
    const change = this.#hidesOwn ? -1 : this.#shown !== undefined && this.#own === undefined ? 1 : 0;
    if (change === 0) return undefined;
    inBody(vfio_user_device_info, message.body);
    const reply = asked(this.#server, {
      ...message,
      noReply: false,
      body: message.body.slice(0, vfio_user_device_info.size),
    });
    const { body } = reply ?? { body: NOTHING };
    if (reply !== undefined) closeFds(reply);
    inBody(vfio_user_device_info, body);
    const info = body.slice();
    // a region that is hidden has others behind it, if it is not the last: then it is shown as one of no bytes
    const count =
      change > 0 ? (this.#shown ?? 0) + 1 : this.#own === this.#regions - 1 ? this.#regions - 1 : this.#regions;
    vfio_user_device_info.view(info).num_regions = count;
    return { body: info };
  }

  #regionInfo(body: Uint8Array): { body: Uint8Array; fds?: readonly number[] } | undefined {
    const { index } = inBody(vfio_region_info, body);
    const { region, regionFile } = this.#translation ?? {};
    if (region !== undefined && index === this.#shown) {
      const argument = infoArgument(body);
      const { dataSection } = region;
      const shown = { generation: 'v1', offset: 0n, dataSection, mappable: true } as const;
      if (!addedRegionInfo(argument, index, shown)) throw refuse('EINVAL', 'GET_REGION_INFO: argsz');
      const { body: answer, isWhole } = regionAnswer(argument);
      return { body: answer, fds: regionFile !== undefined && isWhole ? [regionFile.number] : [] };
    }
    if (this.#hidesOwn && index === this.#own) throw refuse('EINVAL', `GET_REGION_INFO: no region ${index}`);
    if (this.#shown !== undefined && index >= this.#regions)
      throw refuse('EINVAL', `GET_REGION_INFO: no region ${index}`);
    return undefined;
  }

  #map(message: Message): { body: Uint8Array } | undefined {
    const { command, body } = message;
    if (command === VFIO_USER_DMA_MAP) inBody(vfio_user_dma_map, body);
    else inBody(vfio_user_dma_unmap, body);
    const unmap = command === VFIO_USER_DMA_UNMAP ? this.#dirty?.unmap(body) : undefined;
    const sent = unmap === undefined ? message : { ...message, body: unmap.plain };
    const reply = asked(this.#server, sent);
    this.#mapped.note(sent);
    if (reply === undefined) return { body: NOTHING };
    closeFds(reply);
    return { body: unmap?.reply ?? reply.body };
  }

  #reset(): { body: Uint8Array } | undefined {
    if (!this.#isTranslating) return undefined;
    this.#translation?.reset();
    return { body: NOTHING };
  }

  #writes(message: Message): Answered | undefined {
    const isPlain = writesIn(message.body).every(({ region }) => region !== this.#shown && region !== this.#own);
    return isPlain ? undefined : { body: answerAccess(message, this, MAX_BODY) };
  }

  #access(message: Message, access: RegionAccess): Answered | undefined {
    const { command, body } = message;
    const { region, offset } = access;
    if (region === this.#shown) {
      this.#isTranslating = true;
      const shown = this.#translation?.region;
      const isRead = command === VFIO_USER_REGION_READ && access.count > 0;
      const data = shown && isRead ? bufferIn(shown, offset, access.count) : undefined;
      if (data !== undefined) return { body: accessReply(access), data }; // it is sent from where it lies
      return { body: answerOne(access, message, this) };
    }
    if (region !== this.#own) return undefined;
    if (this.#hidesOwn) throw refuse('EINVAL', `region ${region}: is not shown`);
    if (command === VFIO_USER_REGION_WRITE) checkStateWrite(offset, body.subarray(vfio_user_region_access.size));
    return undefined;
  }

  readRegion(index: number, offset: number, into: Uint8Array): void {
    const region = this.#translatedRegion(index, offset, into.length);
    whenReady(() => region.read(offset, into), this.#patience());
  }

  writeRegion(index: number, offset: number, from: Uint8Array): void {
    const region = this.#translatedRegion(index, offset, from.length);
    whenReady(() => region.write(offset, from), this.#patience());
  }

  #translatedRegion(index: number, offset: number, length: number): NonNullable<Translation['region']> {
    const region = this.#translation?.region;
    if (region !== undefined && index === this.#shown && length <= region.regionSize - offset) return region;
    throw refuse('EINVAL', `region ${index}: ${length} bytes at ${offset}`);
  }

  #migration(message: Message): { body: Uint8Array } | undefined {
    const { command, body } = message;
    const commands = [VFIO_USER_DEVICE_FEATURE, VFIO_USER_MIG_DATA_READ, VFIO_USER_MIG_DATA_WRITE];
    if (!commands.includes(command)) return undefined;
    const device = this.#translation?.v2;
    if (device === undefined) {
      if (!this.#showsV2) throw refuse('EINVAL', `command ${command}: v2 is not presented`);
      if (command === VFIO_USER_DEVICE_FEATURE) checkFeature(body);
      return undefined;
    }
    this.#isTranslating = true;
    const limit = this.#client.version?.maxDataXferSize ?? 0;
    const data = { device, limit, wait: this.#patience() };
    if (command === VFIO_USER_DEVICE_FEATURE) return { body: answerFeature(body, device, this.#log) };
    if (command === VFIO_USER_MIG_DATA_READ) return { body: answerRead(body, data) };
    answerWrite(body, data);
    return { body: NOTHING };
  }

  /** A server may say that its device is not ready for as long as it may take for an answer. */
  #patience(): WaitForDevice {
    const { timeout, peer } = this.#server.link.connection;
    const end = performance.now() + timeout;
    return () => {
      if (performance.now() <= end) return sleepUntilReady();
      throw new ShimError('ERR_DEVICE', `vfio-user: ${peer} is not ready within ${timeout / 1000} s`, {
        errno: 'ETIMEDOUT',
      });
    };
  }

  /** The client has gone: the device must not stay where it has left it. */
  end(): void {
    try {
      if (!this.#server.isLost && this.#device !== undefined) {
        this.#dirty?.end();
        const device = this.#device;
        whenReady(() => release(device), this.#patience());
      }
    } finally {
      this.#closeFiles();
    }
  }

  #closeFiles(): void {
    this.#translation?.close();
    this.#port.close();
  }
}

/** MIG_DATA_READ and MIG_DATA_WRITE, and accesses to the region that is shown, of all but device_state. `at`: where there. */
function movesData({ command }: Message, at: number | undefined): boolean {
  return command === VFIO_USER_MIG_DATA_READ || command === VFIO_USER_MIG_DATA_WRITE || (at !== undefined && at >= 8);
}

/** What a REGION_READ or REGION_WRITE is about; `undefined` of any other command. Throws `EINVAL` for one that is about no bytes of a region. */
function accessOf(message: Message): RegionAccess | undefined {
  const { command } = message;
  const isAccess = command === VFIO_USER_REGION_READ || command === VFIO_USER_REGION_WRITE;
  return isAccess ? accessIn(message, MAX_BODY) : undefined;
}

const RESTING: ReadonlySet<string> = new Set(['RUNNING', 'STOP']);

/** Brings a device out of a session that nobody goes on with. What was loaded in part is no state: it is reset. */
function release(device: MigratableDevice): void {
  const state = stateName(device);
  if (RESTING.has(state)) return;
  try {
    recover(device, state === 'RESUMING' || state === 'ERROR' ? 'reset' : 'run');
  } catch (error) {
    if (!(error instanceof ShimError)) throw error;
    recover(device, 'run'); // a reset does not end every server's session (libvfio-user 4f4fce4)
  }
}

/** The pages by which a v1 server logs: those of its `migration` capability. */
function pageSizeOf({ version }: Server): bigint {
  const migration = version.capabilities['migration'];
  const size = typeof migration === 'object' && migration !== null && 'pgsize' in migration ? migration.pgsize : 4096;
  return typeof size === 'number' && Number.isSafeInteger(size) && size > 0 ? BigInt(size) : 4096n;
}
