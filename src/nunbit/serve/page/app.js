'use strict';
/* The page of `nunbit serve`. It calls the public API and nothing else. Sections, in order: strings, small tools,
   preferences, server, signing in, paged lists, wall, query, regions, panel, asking, uploads, label board, map, indexing,
   dialogs and keys, address, start. */

/* ---------------------------------------------------------------------------------------------------- strings ---- */

/** Every text of the page. A function takes what it has to mention. Both languages have the same keys. */
const STRINGS = {
  en: {
    skip: 'Skip to the pictures', brand: 'nunbit, all pictures', views: 'Views', menu: 'Menu',
    viewWall: 'Pictures', viewLabels: 'Label board', viewMap: 'Map',
    add: 'Add', addPictures: 'Add pictures', cancel: 'Cancel', close: 'Close', retry: 'Try again', tryNow: 'Try now',
    search: 'Search', searchLabel: 'Search by words', searchHint: 'Search by words or a picture',
    searchMore: 'More words', searchPicture: 'Search by a picture', clearSearch: 'Clear the search',
    tileSize: 'Size of the pictures', language: 'Language', theme: 'Appearance', themeAuto: 'Auto',
    themeLight: 'Light', themeDark: 'Dark', keys: 'Keyboard', signOut: 'Sign out',
    singleKeys: 'Keys without Ctrl work',
    allPictures: (n) => (n === '1' ? '1 picture' : `${n} pictures`),
    foundPictures: (n) => (n === '1' ? '1 picture, by likeness' : `${n} pictures, most alike first`),
    filtered: (n) => (n === '1' ? '1 picture' : `${n} pictures`),
    loading: 'Loading …', working: 'Working …', similarity: 'Likeness', similarityOf: (v) => `likeness ${v}`,
    moreLike: 'More like this', lessLike: 'Less like this',
    chipMore: (what) => `${what}: wanted. Press for unwanted`, chipLess: (what) => `${what}: unwanted. Press for wanted`,
    chipOut: (what) => `Remove ${what}`, chipCrop: (what) => `${what}: choose a part`, aPicture: 'a picture',
    aRegion: (what) => `a part of ${what}`, only: (what) => `only ${what}`, aBin: (what) => `label ${what}`,
    emptyTitle: 'No pictures yet', emptyDetail: 'Drop pictures or folders anywhere on this page, paste one, or choose some.',
    emptyRead: 'Nobody has added a picture yet. Your key may look, but not add.',
    indexNow: 'Read the folders again', indexFirst: 'Read the folders of the server',
    noneTitle: 'Nothing found', noneDetail: 'No picture passes what you asked for.',
    failedTitle: 'That did not work',
    offline: 'The server cannot be reached.', busy: 'The server is busy.', tryingIn: (s) => `Trying again in ${s} s.`,
    tryingAgain: 'Trying again …',
    errors: {
      0: 'The server cannot be reached.', 400: 'The server did not understand this.', 403: 'Your key does not allow this.',
      404: 'This is not there any more.', 408: 'It took too long.', 409: 'This is under way already.',
      413: 'That is too large.', 429: 'Too much at once.', 500: 'The server failed.', 503: 'The server is busy.',
      504: 'It took too long.', 507: 'The server’s disk is full.',
    },
    broke: 'It hung up while this was being sent.', requestId: (id) => `Request ${id}`,
    previous: 'Previous picture', next: 'Next picture', rename: 'Rename', renameTitle: 'Rename the picture',
    name: 'Name', save: 'Save', remove: 'Delete', preview: (name) => `Large picture of ${name}`,
    noPreview: 'The picture cannot be shown', chooseRegion: 'Choose a part',
    regionHelp: 'Drag over the part you mean.', searchRegion: 'Search this part', clearRegion: 'Clear the part',
    regionBox: (l, t, w, h) => `Chosen part: ${l} from the left, ${t} from the top, ${w} wide, ${h} high. Arrow keys move it, with Shift they resize it, Enter searches.`,
    cropTitle: 'Search by a part of this picture', wholePicture: 'The whole picture',
    facts: 'Facts', dimensions: 'Dimensions', format: 'Format', fileSize: 'File size', taken: 'Taken', modified: 'Changed',
    origin: 'Origin', uploaded: 'Added through the service', fromFolder: 'A folder of the server', id: 'Id',
    attributes: 'Attributes', noAttributes: 'None yet.', attributeKey: 'Name of the attribute', attributeValue: (k) => `Value of ${k}`,
    newValue: 'Value', addAttribute: 'Add', attributeOut: (k) => `Remove the attribute ${k}`, onlyThese: (k, v) => `Show only pictures with ${k}: ${v}`,
    saved: 'Saved.', neighbors: 'Most alike', labelsHere: 'Labels',
    talkTitle: 'Ask about this picture', talkHint: 'What is it?', talkSend: 'Ask', talkLog: 'Questions and answers',
    talkYou: 'You:', talkAnswer: 'Answer:', talkNothing: 'It had nothing to say.', talkCut: 'The answer was cut here.', talkStopped: 'Stopped.',
    gone: 'This picture is not there any more.',
    deleteTitle: 'Delete this picture?',
    deleteUpload: (name) => `${name} and its file are deleted. This cannot be undone.`,
    deleteFile: (name) => `${name} leaves the collection. Its file stays on the server, so reading the folders again brings it back.`,
    deleted: (name) => `${name} was deleted.`,
    uploads: 'Uploads', adding: (done, all) => `Adding ${done} of ${all}`, added: (n) => (n === '1' ? '1 picture added' : `${n} pictures added`),
    notAdded: (n) => (n === '1' ? '1 was not added' : `${n} were not added`), again: 'Try these again', stop: 'Stop',
    dropAdd: 'Drop to add to the collection', dropOr: 'or drop on the search field to search by the picture',
    dropSearch: 'Drop to search by this picture', notPictures: 'There is no picture in it.',
    reasons: {
      'not a picture': 'not a picture', 'not an image': 'not a picture', bad_picture: 'not a usable picture', 'empty file': 'an empty file', truncated: 'cut off',
      'too many pixels': 'too many pixels', 'too many bytes': 'too large', stopped: 'stopped',
    },
    labels: 'Labels', labelsHint: 'cat, dog, …', labelChip: (label) => `Remove the label ${label}`,
    threshold: (p) => (p === null ? 'Unknown: off' : `Unknown below ${p}`), templates: 'Phrasing',
    templatesNone: 'Only the label', templates7: 'OpenAI, 7 sentences', templates80: 'OpenAI, 80 sentences', templatesKorean: 'Korean', labelSet: 'Label set', ownLabels: 'My own',
    setSave: 'Save as a set', setDelete: 'Delete this label set', setName: 'Name, of letters and digits', setSaved: (n) => `The set ${n} was saved.`,
    setDeleteTitle: (n) => `Delete the set ${n}?`, setDeleteDetail: 'The pictures stay.', setDeleted: (n) => `The set ${n} was deleted.`,
    setTooLarge: (n, count) => `${n}, ${count} labels`, unknown: 'Unknown', binShowAll: (n) => `Show all ${n}`,
    binCount: (n, share) => `${n} · ${share}`, binEmpty: 'None',
    boardTitle: 'Sort every picture by your own words', boardDetail: 'Type labels above, or begin with one of these.',
    boardExamples: [['people', 'animals', 'food', 'places'], ['indoors', 'outdoors'], ['photograph', 'drawing', 'text']],
    sorted: (n, bins) => `${n} pictures in ${bins} bins`, tileLabel: (name, label, p) => `${name}, ${label} ${p}`,
    mapLabel: 'Map of the pictures',
    mapHelp: 'What looks alike lies together. Drag or use the arrow keys to move, the wheel or + and − to zoom, Enter to open.',
    zoomIn: 'Zoom in', zoomOut: 'Zoom out', zoomFit: 'Show everything', asList: 'Show as a list', asMap: 'Show as a map',
    mapCount: (n, all) => (n === all ? `${n} pictures` : `${n} of ${all} pictures`),
    mapEmpty: 'A map needs a few pictures.', mapListNote: (n) => `The ${n} pictures nearest to the middle of the map`,
    indexing: 'Indexing', indexingStop: 'Stop indexing', indexingAt: (d, a) => (a ? `Indexing ${d} of ${a}` : 'Indexing …'),
    indexDone: (a, u, r, x) => `Folders read: ${a} added, ${u} updated, ${r} removed, ${x} set aside.`,
    indexFailed: 'Indexing failed.', indexCanceled: 'Indexing was stopped. What was read stays.',
    signInTitle: 'This collection needs a key', signIn: 'Sign in', key: 'Key', keyWrong: 'This key is not valid.',
    keyFirst: 'Ask whoever runs this server for one.', keyExpired: 'Your key is no longer valid. Sign in with another one; what you were doing goes on.',
    model: (id, size, engine) => `${id} · ${size} · ${engine}`,
    keyList: [
      ['/', 'Go to the search field'], ['1 2 3', 'Pictures, label board, map'], ['← ↑ → ↓', 'Move'], ['Enter', 'Open the picture'],
      ['M L', 'More, less like this'], ['Delete', 'Delete the picture'], ['Esc', 'Close'], ['?', 'This list'],
    ],
    minusHint: 'A word after − is unwanted: −dog',
  },
  ko: {
    skip: '사진으로 건너뛰기', brand: '눈빛, 모든 사진', views: '보기', menu: '메뉴',
    viewWall: '사진', viewLabels: '분류판', viewMap: '지도',
    add: '추가', addPictures: '사진 추가', cancel: '취소', close: '닫기', retry: '다시 시도', tryNow: '지금 시도',
    search: '검색', searchLabel: '말로 검색', searchHint: '말이나 사진으로 검색',
    searchMore: '말 더하기', searchPicture: '사진으로 검색', clearSearch: '검색 지우기',
    tileSize: '사진 크기', language: '언어', theme: '화면 모드', themeAuto: '자동',
    themeLight: '밝게', themeDark: '어둡게', keys: '단축키', signOut: '로그아웃',
    singleKeys: 'Ctrl 없이 쓰는 단축키 켜기',
    allPictures: (n) => `사진 ${n}장`,
    foundPictures: (n) => `사진 ${n}장, 비슷한 순`,
    filtered: (n) => `사진 ${n}장`,
    loading: '불러오는 중 …', working: '처리 중 …', similarity: '비슷한 정도', similarityOf: (v) => `비슷한 정도 ${v}`,
    moreLike: '이런 사진 더', lessLike: '이런 사진 덜',
    chipMore: (what) => `${what}: 찾음. 누르면 제외`, chipLess: (what) => `${what}: 제외. 누르면 찾음`,
    chipOut: (what) => `${what} 지우기`, chipCrop: (what) => `${what}: 일부 고르기`, aPicture: '사진',
    aRegion: (what) => `${what}의 일부`, only: (what) => `${what}만`, aBin: (what) => `분류 ${what}`,
    emptyTitle: '아직 사진이 없습니다', emptyDetail: '사진이나 폴더를 이 화면에 끌어다 놓거나, 붙여 넣거나, 골라 주세요.',
    emptyRead: '아직 아무도 사진을 추가하지 않았습니다. 지금 키로는 보기만 할 수 있습니다.',
    indexNow: '폴더 다시 읽기', indexFirst: '서버의 폴더 읽기',
    noneTitle: '찾은 사진이 없습니다', noneDetail: '조건에 맞는 사진이 없습니다.',
    failedTitle: '처리하지 못했습니다',
    offline: '서버에 연결할 수 없습니다.', busy: '서버가 바쁩니다.', tryingIn: (s) => `${s}초 뒤에 다시 시도합니다.`,
    tryingAgain: '다시 시도하는 중 …',
    errors: {
      0: '서버에 연결할 수 없습니다.', 400: '서버가 요청을 이해하지 못했습니다.', 403: '지금 키로는 할 수 없습니다.',
      404: '더 이상 없습니다.', 408: '시간이 너무 오래 걸렸습니다.', 409: '이미 진행 중입니다.',
      413: '너무 큽니다.', 429: '한 번에 너무 많이 요청했습니다.', 500: '서버에 오류가 났습니다.', 503: '서버가 바쁩니다.',
      504: '시간이 너무 오래 걸렸습니다.', 507: '서버의 저장 공간이 가득 찼습니다.',
    },
    broke: '보내는 도중에 연결이 끊겼습니다.', requestId: (id) => `요청 ${id}`,
    previous: '이전 사진', next: '다음 사진', rename: '이름 바꾸기', renameTitle: '사진 이름 바꾸기',
    name: '이름', save: '저장', remove: '삭제', preview: (name) => `${name} 크게 보기`,
    noPreview: '사진을 보여 줄 수 없습니다', chooseRegion: '일부 고르기',
    regionHelp: '찾고 싶은 부분을 끌어서 고르세요.', searchRegion: '이 부분으로 검색', clearRegion: '고른 부분 지우기',
    regionBox: (l, t, w, h) => `고른 부분: 왼쪽에서 ${l}, 위에서 ${t}, 너비 ${w}, 높이 ${h}. 화살표로 옮기고, Shift와 화살표로 크기를 바꾸고, Enter로 검색합니다.`,
    cropTitle: '이 사진의 일부로 검색', wholePicture: '사진 전체',
    facts: '정보', dimensions: '크기', format: '형식', fileSize: '파일 크기', taken: '찍은 때', modified: '바뀐 때',
    origin: '출처', uploaded: '서비스로 추가됨', fromFolder: '서버의 폴더', id: '아이디',
    attributes: '속성', noAttributes: '아직 없습니다.', attributeKey: '속성 이름', attributeValue: (k) => `${k} 값`,
    newValue: '값', addAttribute: '추가', attributeOut: (k) => `속성 ${k} 지우기`, onlyThese: (k, v) => `${k}: ${v} 사진만 보기`,
    saved: '저장했습니다.', neighbors: '가장 비슷한 사진', labelsHere: '분류',
    talkTitle: '이 사진에 대해 물어보기', talkHint: '이것은 뭐야?', talkSend: '묻기', talkLog: '질문과 답',
    talkYou: '나:', talkAnswer: '답:', talkNothing: '할 말이 없다고 합니다.', talkCut: '답이 길어서 여기서 잘렸습니다.', talkStopped: '멈췄습니다.',
    gone: '이 사진은 더 이상 없습니다.',
    deleteTitle: '이 사진을 삭제할까요?',
    deleteUpload: (name) => `${name} 사진과 파일을 삭제합니다. 되돌릴 수 없습니다.`,
    deleteFile: (name) => `${name} 사진을 목록에서 뺍니다. 파일은 서버에 남으므로 폴더를 다시 읽으면 돌아옵니다.`,
    deleted: (name) => `${name} 사진을 삭제했습니다.`,
    uploads: '올리기', adding: (done, all) => `${all}장 중 ${done}장 추가`, added: (n) => `사진 ${n}장을 추가했습니다`,
    notAdded: (n) => `${n}장은 추가하지 못했습니다`, again: '다시 올리기', stop: '멈추기',
    dropAdd: '놓으면 사진을 추가합니다', dropOr: '검색창에 놓으면 그 사진으로 검색합니다',
    dropSearch: '놓으면 이 사진으로 검색합니다', notPictures: '사진이 없습니다.',
    reasons: {
      'not a picture': '사진이 아님', 'not an image': '사진이 아님', bad_picture: '쓸 수 없는 사진', 'empty file': '빈 파일', truncated: '잘린 파일',
      'too many pixels': '화소가 너무 많음', 'too many bytes': '너무 큼', stopped: '멈춤',
    },
    labels: '분류 이름', labelsHint: '고양이, 개, …', labelChip: (label) => `분류 ${label} 지우기`,
    threshold: (p) => (p === null ? '모름: 끔' : `${p} 미만은 모름`), templates: '문장 틀',
    templatesNone: '이름 그대로', templates7: 'OpenAI 문장 7개', templates80: 'OpenAI 문장 80개', templatesKorean: '한국어', labelSet: '분류 묶음', ownLabels: '직접 입력',
    setSave: '묶음으로 저장', setDelete: '이 분류 묶음 삭제', setName: '이름 (글자와 숫자)', setSaved: (n) => `분류 묶음 ${n}: 저장했습니다.`,
    setDeleteTitle: (n) => `분류 묶음 ${n}: 삭제할까요?`, setDeleteDetail: '사진은 그대로 남습니다.', setDeleted: (n) => `분류 묶음 ${n}: 삭제했습니다.`,
    setTooLarge: (n, count) => `${n}, 분류 ${count}개`, unknown: '모름', binShowAll: (n) => `${n}장 모두 보기`,
    binCount: (n, share) => `${n}장 · ${share}`, binEmpty: '없음',
    boardTitle: '내 말로 모든 사진을 나누기', boardDetail: '위에 분류 이름을 쓰거나, 아래에서 골라 시작하세요.',
    boardExamples: [['사람', '동물', '음식', '장소'], ['실내', '실외'], ['사진', '그림', '글자']],
    sorted: (n, bins) => `사진 ${n}장, 분류 ${bins}개`, tileLabel: (name, label, p) => `${name}, ${label} ${p}`,
    mapLabel: '사진 지도',
    mapHelp: '비슷한 사진이 가까이 있습니다. 끌거나 화살표로 움직이고, 휠이나 +와 −로 확대하고, Enter로 엽니다.',
    zoomIn: '확대', zoomOut: '축소', zoomFit: '전체 보기', asList: '목록으로 보기', asMap: '지도로 보기',
    mapCount: (n, all) => (n === all ? `사진 ${n}장` : `사진 ${all}장 중 ${n}장`),
    mapEmpty: '지도를 그리려면 사진이 몇 장 더 필요합니다.', mapListNote: (n) => `지도 한가운데에서 가까운 사진 ${n}장`,
    indexing: '색인', indexingStop: '색인 멈추기', indexingAt: (d, a) => (a ? `${a}장 중 ${d}장 색인` : '색인 중 …'),
    indexDone: (a, u, r, x) => `폴더를 읽었습니다. 추가 ${a}, 갱신 ${u}, 삭제 ${r}, 제외 ${x}.`,
    indexFailed: '색인하지 못했습니다.', indexCanceled: '색인을 멈췄습니다. 읽은 것은 남습니다.',
    signInTitle: '키가 필요합니다', signIn: '로그인', key: '키', keyWrong: '맞지 않는 키입니다.',
    keyFirst: '서버를 운영하는 사람에게 키를 받으세요.', keyExpired: '키가 더 이상 유효하지 않습니다. 다른 키로 로그인하면 하던 일이 이어집니다.',
    model: (id, size, engine) => `${id} · ${size} · ${engine}`,
    keyList: [
      ['/', '검색창으로'], ['1 2 3', '사진, 분류판, 지도'], ['← ↑ → ↓', '옮기기'], ['Enter', '사진 열기'],
      ['M L', '이런 사진 더, 덜'], ['Delete', '사진 삭제'], ['Esc', '닫기'], ['?', '이 목록'],
    ],
    minusHint: '− 뒤의 말은 제외합니다: −개',
  },
};

/** The text of a key in the current language. */
function t(key, ...values) {
  const text = STRINGS[preferences.language][key];
  return typeof text === 'function' ? text(...values) : text;
}

/** Write the current language into everything below a node that was marked with data-t, -label or -placeholder. */
function translate(root) {
  for (const node of root.querySelectorAll('[data-t]')) node.textContent = t(node.dataset.t);
  for (const node of root.querySelectorAll('[data-t-placeholder]')) node.placeholder = t(node.dataset.tPlaceholder);
  for (const node of root.querySelectorAll('[data-t-label]')) setLabel(node, t(node.dataset.tLabel));
}

function setLabel(node, text) {
  node.setAttribute('aria-label', text);
  if (node.matches('button')) node.title = text;
}

/* ------------------------------------------------------------------------------------------------ small tools ---- */

const $ = (id) => document.getElementById(id);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const isNarrow = () => matchMedia('(max-width: 859px)').matches;
const isCalm = () => matchMedia('(prefers-reduced-motion: reduce)').matches;
const isAbort = (error) => error instanceof DOMException && error.name === 'AbortError';

/**
 * Make an element. `t` and `label` are keys of STRINGS that follow the language; `on…` listens; the rest are attributes.
 */
function h(tag, given = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(given)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (key === 't') { node.dataset.t = value; node.textContent = t(value); }
    else if (key === 'label') { node.dataset.tLabel = value; setLabel(node, t(value)); }
    else node.setAttribute(key, value === true ? '' : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  use.setAttribute('href', `#i-${name}`);
  svg.append(use);
  return svg;
}

/** A button with an icon and, unless it is quiet, a text. */
function button(name, key, onclick, given = {}) {
  const quiet = given.class === 'quiet';
  return h('button', { type: 'button', onclick, ...(quiet ? { label: key } : {}), ...given }, icon(name), quiet ? null : h('span', { t: key }));
}

const number = (value) => new Intl.NumberFormat(preferences.language).format(value);
const percent = (value) => new Intl.NumberFormat(preferences.language, { style: 'percent', maximumFractionDigits: 0 }).format(value);
const decimals = (value) => new Intl.NumberFormat(preferences.language, { minimumFractionDigits: 2, maximumFractionDigits: 2 }).format(value);

function bytes(value) {
  const step = value >= 1e9 ? ['gigabyte', 1e9] : value >= 1e6 ? ['megabyte', 1e6] : value >= 1e3 ? ['kilobyte', 1e3] : ['byte', 1];
  const form = { style: 'unit', unit: step[0], maximumFractionDigits: value / step[1] < 10 && step[1] > 1 ? 1 : 0 };
  return new Intl.NumberFormat(preferences.language, form).format(value / step[1]);
}

function moment(text) {
  const date = new Date(text);
  return Number.isNaN(date.getTime()) ? text : new Intl.DateTimeFormat(preferences.language, { dateStyle: 'medium', timeStyle: 'short' }).format(date);
}

/** Call once, `ms` after the last call. */
function debounce(ms, run) {
  let timer = 0;
  return (...values) => { clearTimeout(timer); timer = setTimeout(() => run(...values), ms); };
}

/** Aborts the call before, so that only the latest answer counts. */
class Latest {
  #controller = new AbortController();

  next() {
    this.#controller.abort();
    this.#controller = new AbortController();
    return this.#controller.signal;
  }
}

function toast(text, kind = 'plain') {
  const node = h('p', { class: `toast ${kind}` }, text);
  node.append(h('button', { type: 'button', class: 'quiet small', label: 'close', onclick: () => node.remove() }, icon('close')));
  $('toasts').append(node);
  setTimeout(() => node.remove(), kind === 'bad' ? 12000 : 6000);
}

/** Sizes of thumbnails bound the longest side; a square tile needs the shorter one to fill it. */
function thumbnail(item, pixels) {
  const needed = pixels * Math.min(devicePixelRatio, 2) * 1.4;
  const size = [160, 320, 640].find((side) => side >= needed) ?? 1280;
  return thumbnailOf(item.id, size, item.modified);
}

function thumbnailOf(id, size, version) {
  return `/v1/items/${id}/thumbnail?size=${size}${version ? `&v=${encodeURIComponent(version)}` : ''}`;
}

/** Show a picture in an <img>; when it does not come, try again a little later, then say so by the class "broken". */
function showPicture(image, source) {
  image.classList.remove('ready', 'broken');
  let tries = 0;
  image.onload = () => image.classList.add('ready');
  image.onerror = async () => {
    if (tries === 2) { image.classList.add('broken'); return; }
    tries += 1;
    await sleep(tries * 3000);
    if (image.getAttribute('src') === source) { image.removeAttribute('src'); image.src = source; }
  };
  image.src = source;
}

function hidePicture(image) {
  image.onload = image.onerror = null;
  image.removeAttribute('src');
  image.classList.remove('ready', 'broken');
}

/* ------------------------------------------------------------------------------------------------ preferences ---- */

/** What one likes, kept in this browser if it lets us. */
const preferences = {
  language: 'en', theme: 'auto', tile: 176, labels: [], threshold: 0, templates: 'none', singleKeys: true,

  load() {
    this.language = navigator.language.toLowerCase().startsWith('ko') ? 'ko' : 'en';
    try {
      const kept = JSON.parse(localStorage.getItem('nunbit') ?? '{}');
      for (const key of ['language', 'theme', 'tile', 'labels', 'threshold', 'templates', 'singleKeys']) {
        if (typeof kept[key] === typeof this[key]) this[key] = kept[key];
      }
    } catch { /* what cannot be read is as if it was never kept */ }
    if (!(this.language in STRINGS)) this.language = 'en';
    if (!Array.isArray(this.labels)) this.labels = [];
  },

  set(key, value) {
    this[key] = value;
    try {
      const kept = JSON.parse(localStorage.getItem('nunbit') ?? '{}');
      localStorage.setItem('nunbit', JSON.stringify({ ...kept, [key]: value }));
    } catch { /* it holds until the page is left */ }
  },
};

function applyTheme() {
  if (preferences.theme === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = preferences.theme;
  map.recolor();
}

function applyLanguage() {
  document.documentElement.lang = preferences.language;
  translate(document);
  query.render();
  wall.relabel();
  panel.render();
  board.relabel();
  map.relabel();
  tray.render();
  showCount();
  indexing.render();
  link.render();
}

/* ----------------------------------------------------------------------------------------------------- server ---- */

/** An answer that is an error, or none at all (status 0). */
class ServerError extends Error {
  constructor(status, detail = {}, retryAfter = 0, requestId = '') {
    super(detail.message ?? '');
    Object.assign(this, { status, code: detail.code ?? '', retryAfter, requestId });
  }

  /** What people are told: our words first, the server's own after them. */
  get title() {
    return t('errors')[this.status] ?? t('failedTitle');
  }
}

/** While the server is away or busy, all requests wait together, and one banner says for how long. */
const link = {
  kind: '', until: 0, waiting: null, wake: null, failures: 0, timer: 0,

  /** Until the time is up or somebody presses "Try now". */
  pause(kind, seconds, signal) {
    if (!this.waiting) {
      this.failures += 1;
      this.kind = kind;
      this.until = Date.now() + 1000 * (seconds || Math.min(2 ** this.failures, 15));
      this.waiting = new Promise((resolve) => { this.wake = resolve; });
      this.timer = setInterval(() => (Date.now() >= this.until ? this.resume() : this.render()), 250);
      this.render();
    }
    return abortable(this.waiting, signal);
  },

  resume() {
    clearInterval(this.timer);
    this.waiting = null;
    this.render();
    this.wake?.();
  },

  fine() {
    if (this.waiting || !this.kind) return;
    this.kind = '';
    this.failures = 0;
    this.render();
  },

  render() {
    const text = this.kind ? t(this.kind) : '';
    const left = Math.max(1, Math.ceil((this.until - Date.now()) / 1000));
    $('banner-wait').textContent = this.waiting ? t('tryingIn', left) : t('tryingAgain');
    $('banner').hidden = !this.kind;
    $('banner-now').disabled = !this.waiting;
    if ($('banner-text').textContent !== text) $('banner-text').textContent = text;
  },
};

/** A promise that a signal gives up on. */
function abortable(promise, signal) {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    const give = () => reject(new DOMException('', 'AbortError'));
    if (signal.aborted) give();
    signal.addEventListener('abort', give, { once: true });
    promise.then(resolve, reject);
  });
}

async function once(method, path, { body, signal, headers, unread = false } = {}) {
  const isForm = body instanceof FormData;
  let answer;
  try {
    answer = await fetch(path, {
      method, signal, headers: { ...(body && !isForm ? { 'content-type': 'application/json' } : {}), ...headers },
      body: body && !isForm ? JSON.stringify(body) : body,
    });
    if (unread && answer.ok) return answer;
    const content = answer.status === 204 ? null : await answer.json().catch((error) => { if (isAbort(error) || answer.ok) throw error; });
    if (answer.ok) return content;
    throw new ServerError(answer.status, content?.error, Number(answer.headers.get('retry-after')) || 0, answer.headers.get('x-request-id') ?? '');
  } catch (error) {
    if (error instanceof ServerError || isAbort(error)) throw error;
    throw new ServerError(0);
  }
}

const BUSY_TRIES = 6;

/** Tells a server that is away from one that hangs up on this very request, as some do when it is too large. */
async function isReachable() {
  return once('GET', '/readyz').then(() => true, (error) => error.status > 0);
}

/**
 * Ask the server, patiently: waits while it cannot be reached, comes again when it is busy, and asks for a key when one
 * is needed. Every request of the API may be repeated, since pictures are known by their content. With `unread` the
 * answer is for others to read.
 * @throws {ServerError} anything else
 */
async function call(method, path, options = {}) {
  for (let tries = 0; ; tries += 1) {
    if (link.waiting) await abortable(link.waiting, options.signal);
    try {
      const answer = await once(method, path, options);
      link.fine();
      return answer;
    } catch (error) {
      if (!(error instanceof ServerError)) throw error;
      if (error.status === 0 && tries && options.body && await isReachable()) throw new ServerError(0, { message: t('broke') });
      if (error.status === 0) await link.pause('offline', 0, options.signal);
      else if (error.status === 401) await abortable(session.needed(), options.signal);
      else if ([429, 503].includes(error.status) && tries < BUSY_TRIES) await link.pause('busy', error.retryAfter, options.signal);
      else { link.fine(); throw error; }
    }
  }
}

/** Run what one clicked on; what goes wrong is said. */
async function attempt(run) {
  try {
    return await run();
  } catch (error) {
    if (isAbort(error)) return undefined;
    if (!(error instanceof ServerError)) throw error;
    toast(`${error.title} ${error.message}`, 'bad');
    return undefined;
  }
}

/* ------------------------------------------------------------------------------------------------- signing in ---- */

const session = {
  scope: null, chat: false, keysNeeded: false, wasIn: false, asking: null, done: null,

  get canWrite() { return this.scope === 'write' || this.scope === 'admin'; },
  get isAdmin() { return this.scope === 'admin'; },

  async load() {
    const body = await call('GET', '/v1/session');
    this.keysNeeded = body.keys_needed;
    this.chat = body.chat;
    this.scope = body.scope;
    if (!this.scope) { await this.needed(); return; }
    this.wasIn = true;
    this.render();
  },

  render() {
    document.documentElement.dataset.scope = this.scope ?? '';
    $('add').hidden = !this.canWrite;
    $('menu-leave').hidden = !this.keysNeeded;
    indexing.render();
  },

  /** Resolves once a valid key is there. */
  needed() {
    if (!this.asking) {
      this.asking = new Promise((resolve) => { this.done = resolve; });
      $('sign-in-reason').textContent = t(this.wasIn ? 'keyExpired' : 'keyFirst');
      $('sign-in-problem').textContent = '';
      $('sign-in').showModal();
      $('sign-in-key').focus();
    }
    return this.asking;
  },

  async enter(key) {
    $('sign-in-problem').textContent = '';
    try {
      await once('POST', '/v1/session', { headers: { authorization: `Bearer ${key}` } });
      const body = await once('GET', '/v1/session');
      Object.assign(this, { scope: body.scope, chat: body.chat, keysNeeded: body.keys_needed, wasIn: true, asking: null });
    } catch (error) {
      if (!(error instanceof ServerError)) throw error;
      $('sign-in-problem').textContent = error.status === 401 ? t('keyWrong') : `${error.title} ${error.message}`;
      $('sign-in-key').select();
      return;
    }
    $('sign-in-key').value = '';
    $('sign-in').close();
    this.render();
    this.done();
  },

  async leave() {
    await attempt(() => call('DELETE', '/v1/session'));
    location.reload();
  },

  start() {
    $('sign-in').addEventListener('cancel', (event) => event.preventDefault());
    $('sign-in').addEventListener('close', () => { if (this.asking) $('sign-in').showModal(); }); // browsers let a second Esc through
    $('sign-in-form').addEventListener('submit', (event) => {
      event.preventDefault();
      this.enter($('sign-in-key').value.trim());
    });
    $('menu-leave').addEventListener('click', () => this.leave());
  },
};

/* ------------------------------------------------------------------------------------------------ paged lists ---- */

const PAGE_SIZE = 100;
const KEPT_ITEMS = 20000;

/**
 * A list on the server, of which only what is looked at is fetched. Pages that are no longer looked at are aborted.
 */
class PagedList {
  /**
   * @param {(offset: number, limit: number, signal: AbortSignal) => Promise<{data: object[], total: number}>} load
   * @param {() => void} changed called after every answer
   */
  constructor(load, changed) {
    Object.assign(this, { load, changed, total: null, problem: null });
    this.items = new Map(); // place → item
    this.pending = new Map(); // page → AbortController
    this.short = new Set(); // pages that gave less than they promised; asking again would not help
    this.stale = false;
  }

  get(place) {
    return this.items.get(place);
  }

  /** Fetch what is missing of these places, and give up on everything else. */
  ensure(first, last) {
    if (this.problem) return; // whoever looks decides when to try again
    const from = Math.floor(Math.max(first, 0) / PAGE_SIZE);
    const to = Math.floor(Math.max(Math.min(last, (this.total ?? 1) - 1), 0) / PAGE_SIZE);
    for (const [page, controller] of this.pending) {
      if (page < from || page > to) { controller.abort(); this.pending.delete(page); }
    }
    for (let page = from; page <= to; page += 1) {
      if (!this.pending.has(page) && (this.stale || this.#lacks(page))) this.#fetch(page);
    }
    if (this.items.size > KEPT_ITEMS) this.#forget((first + last) / 2);
  }

  /** Fetch again what is seen; until it comes, what is there stays. */
  refresh() {
    this.abort();
    this.stale = true;
    this.problem = null;
    this.changed();
  }

  /** Take one out, closing the gap. */
  remove(id) {
    const place = this.placeOf(id);
    if (place < 0) return;
    this.abort();
    const moved = [...this.items].filter(([at]) => at !== place).map(([at, item]) => [at > place ? at - 1 : at, item]);
    this.items = new Map(moved);
    this.total -= 1;
    this.changed();
  }

  replace(item) {
    const place = this.placeOf(item.id);
    if (place < 0) return;
    this.items.set(place, { ...this.items.get(place), ...item });
    this.changed();
  }

  placeOf(id) {
    for (const [place, item] of this.items) if (item.id === id) return place;
    return -1;
  }

  abort() {
    for (const controller of this.pending.values()) controller.abort();
    this.pending.clear();
  }

  #lacks(page) {
    if (this.total === null) return true;
    if (this.short.has(page)) return false;
    const end = Math.min((page + 1) * PAGE_SIZE, this.total);
    for (let place = page * PAGE_SIZE; place < end; place += 1) if (!this.items.has(place)) return true;
    return false;
  }

  async #fetch(page) {
    const controller = new AbortController();
    this.pending.set(page, controller);
    try {
      const answer = await this.load(page * PAGE_SIZE, PAGE_SIZE, controller.signal);
      if (controller.signal.aborted) return;
      if (this.stale) { this.items.clear(); this.short.clear(); this.stale = false; }
      this.total = answer.total;
      this.problem = null;
      answer.data.forEach((item, index) => this.items.set(page * PAGE_SIZE + index, item));
      if (answer.data.length < Math.min(PAGE_SIZE, this.total - page * PAGE_SIZE)) this.short.add(page);
    } catch (error) {
      if (isAbort(error)) return;
      if (!(error instanceof ServerError)) throw error;
      this.problem = error;
    }
    if (this.pending.get(page) === controller) this.pending.delete(page);
    this.changed();
  }

  #forget(middle) {
    for (const place of this.items.keys()) if (Math.abs(place - middle) > KEPT_ITEMS / 4) this.items.delete(place);
  }
}

/* ------------------------------------------------------------------------------------------------------- wall ---- */

const GAP = 6;
const SPARE_ROWS = 2;
const FAST = 3; // pixels a millisecond: nobody sees a picture at that speed, so none is asked for

/** Squares of a PagedList. Only the rows in sight exist; they are used again when they leave. */
const wall = {
  list: null, columns: 1, side: 100, active: 0, rows: new Map(), spare: [], fast: false, lastTop: 0, lastTime: 0,

  start() {
    this.scroller = $('wall-scroller');
    this.grid = $('wall');
    this.settle = debounce(120, () => {
      this.fast = false;
      if (this.list?.items.size) this.list.problem = null; // scrolling tries again
      this.render();
    });
    this.scroller.addEventListener('scroll', () => this.scrolled(), { passive: true });
    new ResizeObserver(() => this.layout()).observe(this.scroller);
    this.grid.addEventListener('keydown', (event) => this.keydown(event));
    this.grid.addEventListener('focusin', (event) => this.focused(event));
    this.grid.addEventListener('click', (event) => this.clicked(event));
    this.grid.addEventListener('dragstart', (event) => this.dragged(event));
  },

  /** Show another list from its beginning. */
  show(list) {
    this.list?.abort();
    Object.assign(this, { list, active: 0, lastTop: 0 });
    this.scroller.scrollTop = 0;
    this.layout();
  },

  /** After another view was shown. */
  back() {
    const top = this.lastTop;
    this.layout();
    this.scroller.scrollTop = top;
  },

  /** Measure anew, keeping the first picture in sight where it is. */
  layout() {
    const style = getComputedStyle(this.scroller);
    const width = this.scroller.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    if (width <= 0 || !this.list) return;
    const first = Math.round(this.scroller.scrollTop / (this.side + GAP)) * this.columns;
    const least = isNarrow() ? Math.min(preferences.tile, (width - 2 * GAP) / 3) : preferences.tile;
    this.columns = Math.max(1, Math.floor((width + GAP) / (least + GAP)));
    this.side = (width - GAP * (this.columns - 1)) / this.columns;
    this.grid.style.setProperty('--columns', this.columns);
    this.grid.style.setProperty('--side', `${this.side}px`);
    const hadFocus = this.grid.contains(document.activeElement) && this.grid !== document.activeElement;
    for (const row of this.rows.values()) row.remove();
    this.rows.clear();
    this.spare = [];
    this.render();
    if (this.scroller.scrollTop > 0) this.scroller.scrollTop = Math.floor(first / this.columns) * (this.side + GAP);
    if (hadFocus) this.focus(this.active);
  },

  scrolled() {
    const now = performance.now();
    const top = this.scroller.scrollTop;
    this.fast = Math.abs(top - this.lastTop) / Math.max(now - this.lastTime, 1) > FAST;
    Object.assign(this, { lastTop: top, lastTime: now });
    if (!this.frame) this.frame = requestAnimationFrame(() => { this.frame = 0; this.render(); });
    this.settle();
  },

  render() {
    if (!this.list || !this.scroller.clientHeight) return;
    const total = this.list.total ?? 0;
    const height = this.side + GAP;
    const rowCount = Math.ceil(total / this.columns);
    this.active = clamp(this.active, 0, Math.max(total - 1, 0));
    this.grid.hidden = rowCount === 0;
    this.grid.style.height = `${Math.max(rowCount * height - GAP, 0)}px`;
    this.grid.setAttribute('aria-rowcount', rowCount);
    this.grid.setAttribute('aria-colcount', this.columns);
    const top = Math.floor(this.scroller.scrollTop / height);
    const seen = Math.ceil(this.scroller.clientHeight / height) + 1;
    const [first, last] = [Math.max(top - SPARE_ROWS, 0), Math.min(top + seen + SPARE_ROWS, rowCount) - 1];
    this.recycle(first, last);
    for (let row = first; row <= last; row += 1) this.fillRow(row);
    this.grid.tabIndex = this.cellOf(this.active) ? -1 : 0;
    if (!this.fast) this.list.ensure(first * this.columns, Math.max((last + 1) * this.columns - 1, 0));
    showState();
  },

  recycle(first, last) {
    for (const [place, row] of this.rows) {
      if (place >= first && place <= last) continue;
      if (row.contains(document.activeElement)) this.grid.focus({ preventScroll: true });
      this.rows.delete(place);
      this.spare.push(row);
      row.hidden = true;
    }
  },

  fillRow(place) {
    let row = this.rows.get(place);
    if (!row) {
      row = this.spare.pop() ?? this.makeRow();
      this.rows.set(place, row);
      row.hidden = false;
      row.setAttribute('aria-rowindex', place + 1);
      row.style.transform = `translateY(${place * (this.side + GAP)}px)`;
    }
    [...row.children].forEach((cell, column) => this.fillCell(cell, place * this.columns + column));
  },

  makeRow() {
    const cells = Array.from({ length: this.columns }, (_, column) => h(
      'div', { role: 'gridcell', class: 'tile', tabindex: -1, 'aria-colindex': column + 1 },
      h('img', { alt: '', decoding: 'async', draggable: 'true' }),
      h('span', { class: 'likeness', 'aria-hidden': 'true' }), h('span', { class: 'caption', 'aria-hidden': 'true' }),
    ));
    const row = h('div', { role: 'row', class: 'wall-row' }, ...cells);
    this.grid.append(row);
    return row;
  },

  fillCell(cell, place) {
    const item = this.list.get(place);
    cell.hidden = place >= this.list.total;
    cell.dataset.place = place;
    cell.tabIndex = place === this.active ? 0 : -1;
    cell.classList.toggle('open', Boolean(item) && item.id === panel.item?.id);
    const [image, likeness, caption] = cell.children;
    if (cell.item !== item) {
      cell.item = item;
      setLabel(cell, item ? itemLabel(item) : t('loading'));
      caption.textContent = item ? captionOf(item) : '';
      likeness.hidden = item?.similarity === undefined;
      if (!likeness.hidden) likeness.style.setProperty('--share', clamp(item.similarity, 0, 1));
    }
    const source = item && !this.fast ? thumbnail(item, this.side) : '';
    if (item && this.fast && cell.source?.includes(item.id)) return;
    if (cell.source === source) return;
    cell.source = source;
    if (source) showPicture(image, source);
    else hidePicture(image);
  },

  relabel() {
    for (const cell of this.grid.querySelectorAll('.tile')) cell.item = null;
    this.render();
  },

  cellOf(place) {
    const row = this.rows.get(Math.floor(place / this.columns));
    return row?.children[place % this.columns];
  },

  /** Put the focus on a picture, scrolling to it. */
  focus(place) {
    this.active = clamp(place, 0, Math.max((this.list.total ?? 1) - 1, 0));
    const height = this.side + GAP;
    const top = Math.floor(this.active / this.columns) * height;
    const sight = this.scroller.clientHeight;
    if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
    else if (top + height > this.scroller.scrollTop + sight - GAP) this.scroller.scrollTop = top + height - sight + 2 * GAP;
    this.fast = false;
    this.render();
    this.cellOf(this.active)?.focus({ preventScroll: true });
  },

  focused(event) {
    if (event.target === this.grid) return;
    const cell = event.target.closest('.tile');
    if (!cell || Number(cell.dataset.place) === this.active) return;
    const before = this.cellOf(this.active);
    if (before) before.tabIndex = -1;
    this.active = Number(cell.dataset.place);
    cell.tabIndex = 0;
  },

  clicked(event) {
    const cell = event.target.closest('.tile');
    if (!cell?.item) return;
    cell.focus({ preventScroll: true });
    panel.open(cell.item, { focus: isNarrow() });
  },

  dragged(event) {
    const item = event.target.closest('.tile')?.item;
    if (!item) return;
    event.dataTransfer.clearData();
    event.dataTransfer.setData(ITEM_TYPE, JSON.stringify({ id: item.id, name: item.name, modified: item.modified }));
    event.dataTransfer.effectAllowed = 'copy';
  },

  keydown(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / (this.side + GAP)) - 1) * this.columns;
    const steps = {
      ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns, PageUp: -page, PageDown: page,
      Home: -Infinity, End: Infinity,
    };
    const item = this.list.get(this.active);
    if (event.key in steps) this.step(steps[event.key]);
    else if (event.target === this.grid && event.key === 'Enter') this.focus(this.active);
    else if (item && (event.key === 'Enter' || event.key === ' ')) panel.open(item, { focus: true });
    else if (item && (event.key === 'Delete' || event.key === 'Backspace')) askDelete(item);
    else if (item && preferences.singleKeys && event.key.toLowerCase() === 'm') query.add(itemPart(item, 1));
    else if (item && preferences.singleKeys && event.key.toLowerCase() === 'l') query.add(itemPart(item, LESS));
    else return;
    event.preventDefault();
  },

  /** Move; an open panel follows. A step that leaves the wall is not made, but for those to its ends. */
  step(by) {
    const total = this.list.total ?? 0;
    const to = Number.isFinite(by) ? this.active + by : (by < 0 ? 0 : total - 1);
    const far = Math.abs(by) > this.columns;
    if (!far && (to < 0 || to >= total)) { this.focus(this.active); return; }
    this.focus(to);
    if (!$('panel').hidden) this.follow();
  },

  follow: debounce(150, () => {
    const item = wall.list.get(wall.active);
    if (item && !$('panel').hidden && item.id !== panel.item?.id) panel.open(item);
  }),
};

const ITEM_TYPE = 'application/x-nunbit-item';

function itemLabel(item) {
  return item.similarity === undefined ? item.name : `${item.name}, ${t('similarityOf', decimals(item.similarity))}`;
}

function captionOf(item) {
  return item.similarity === undefined ? item.name : `${decimals(item.similarity)}  ${item.name}`;
}

/** What stands in place of a wall without pictures. */
function showState() {
  const { list } = wall;
  const box = $('wall-state');
  const kind = list.problem && !list.items.size ? 'failed' : list.total === 0 ? (query.isEmpty ? 'empty' : 'none') : '';
  showCount();
  const key = `${kind} ${list.problem?.requestId} ${preferences.language} ${session.scope} ${indexing.body?.can_start}`;
  if (box.dataset.key === key) return;
  box.dataset.key = key;
  box.hidden = !kind;
  if (kind === 'failed') box.replaceChildren(...failure(list.problem, () => list.refresh()));
  else if (kind === 'none') box.replaceChildren(...nothingFound());
  else if (kind === 'empty') box.replaceChildren(...emptyCollection());
  else box.replaceChildren();
}

function nothingFound() {
  return [icon('search'), h('h2', { t: 'noneTitle' }), h('p', { t: 'noneDetail' }), h('button', { type: 'button', t: 'clearSearch', onclick: () => query.set([]) })];
}

function emptyCollection() {
  const nodes = [icon('eye'), h('h2', { t: 'emptyTitle' }), h('p', { t: session.canWrite ? 'emptyDetail' : 'emptyRead' })];
  if (session.canWrite) nodes.push(button('plus', 'addPictures', () => $('files').click(), { class: 'primary' }));
  if (indexing.canStart) nodes.push(button('folder', 'indexFirst', () => indexing.begin()));
  return nodes;
}

function failure(problem, retry) {
  return [
    icon('close'), h('h2', {}, problem.title), h('p', {}, problem.message),
    problem.requestId ? h('p', { class: 'note' }, t('requestId', problem.requestId)) : null,
    h('button', { type: 'button', t: 'retry', onclick: retry }),
  ].filter(Boolean);
}

function showCount() {
  let text = '';
  if (view === 'wall' && wall.list && wall.list.total !== null) {
    text = t(query.isEmpty ? 'allPictures' : query.wanted.length ? 'foundPictures' : 'filtered', number(wall.list.total));
  } else if (view === 'labels') text = board.countText();
  else if (view === 'map') text = map.countText();
  if ($('count').textContent !== text) $('count').textContent = text;
}

/* ------------------------------------------------------------------------------------------------------ query ---- */

const LESS = -0.7;
const UNCHANGED_BYTES = 1e6;
const QUERY_SIDE = 1600;
let lastPart = 0;

/* A part of a query: {key, weight, text | image | item | filter | bin, name, preview, region}. */
const textPart = (text) => {
  const unwanted = /^[-−–](?=\S)/u.test(text);
  return { key: ++lastPart, text: unwanted ? text.slice(1) : text, weight: unwanted ? LESS : 1 };
};
const itemPart = (item, weight, region = null) => ({ key: ++lastPart, item: item.id, name: item.name, modified: item.modified, weight, region });
const filterPart = (field, value) => ({ key: ++lastPart, filter: { field, value } });

/** A file → a part. Large ones are made smaller, since encoders look at a few hundred pixels and every page sends it. */
async function picturePart(file) {
  let blob = file;
  if (file.size > UNCHANGED_BYTES) {
    try {
      const bitmap = await createImageBitmap(file);
      const scale = Math.min(1, QUERY_SIDE / Math.max(bitmap.width, bitmap.height));
      const canvas = h('canvas', { width: Math.round(bitmap.width * scale), height: Math.round(bitmap.height * scale) });
      canvas.getContext('2d').drawImage(bitmap, 0, 0, canvas.width, canvas.height);
      bitmap.close();
      blob = await new Promise((resolve) => { canvas.toBlob(resolve, 'image/jpeg', 0.92); }) ?? file;
    } catch { /* what this browser cannot decode, the server may */ }
  }
  return { key: ++lastPart, image: await dataUrl(blob), name: file.name, preview: URL.createObjectURL(blob), weight: 1, region: null };
}

function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

/** What is looked for; shown as chips. */
const query = {
  parts: [],
  known: new Map(), // key → part, for going back to pictures that an address cannot hold

  get isEmpty() { return this.parts.length === 0; },
  get wanted() { return this.parts.filter((part) => part.weight !== undefined); },

  /** The conditions of the filter chips, or undefined. */
  get filter() {
    const filters = this.parts.filter((part) => part.filter);
    return filters.length ? Object.fromEntries(filters.map((part) => [part.filter.field, part.filter.value])) : undefined;
  },

  add(part) {
    this.set([...this.parts.filter((other) => !other.bin && !(part.item && other.item === part.item && !other.region && !part.region)), part]);
  },

  /** Look for something else. */
  set(parts, { remember = true } = {}) {
    this.parts = parts;
    for (const part of parts) this.known.set(part.key, part);
    this.render();
    wall.show(makeList(parts));
    if (remember) {
      if (isNarrow()) panel.close({ remember: false });
      go('wall', { push: true });
    }
  },

  render() {
    $('chips').replaceChildren(...this.parts.map((part) => this.chip(part)));
    $('chips').hidden = this.isEmpty;
    $('search-clear').hidden = this.isEmpty;
    $('search-input').dataset.tPlaceholder = this.isEmpty ? 'searchHint' : 'searchMore';
    $('search-input').placeholder = t($('search-input').dataset.tPlaceholder);
    $('search-input').title = t('minusHint');
    document.title = this.isEmpty ? 'nunbit' : `${this.parts.map(partName).join(', ')} · nunbit`;
  },

  chip(part) {
    const name = partName(part);
    const unwanted = part.weight < 0;
    const sign = part.weight === undefined
      ? h('span', { class: 'sign' }, icon('filter'))
      : h('button', { type: 'button', class: 'sign', title: t(unwanted ? 'moreLike' : 'lessLike'), 'aria-label': t(unwanted ? 'chipLess' : 'chipMore', name), onclick: () => this.turn(part) }, icon(unwanted ? 'minus' : 'plus'));
    const out = h('button', { type: 'button', class: 'out', 'aria-label': t('chipOut', name), title: t('chipOut', name), onclick: () => this.drop(part) }, icon('close'));
    return h('li', { class: `chip${unwanted ? ' unwanted' : ''}` }, sign, this.face(part, name), out);
  },

  face(part, name) {
    if (!part.image && !part.item) return h('span', { class: 'chip-text' }, name);
    const picture = chipPicture(part);
    if (!part.image) return h('span', { class: 'chip-face', title: name }, picture);
    return h('button', { type: 'button', class: 'chip-face', 'aria-label': t('chipCrop', name), title: t('chipCrop', name), onclick: () => this.crop(part) }, picture);
  },

  turn(part) {
    const index = this.parts.indexOf(part);
    this.set(this.parts.map((other) => (other === part ? { ...part, key: ++lastPart, weight: part.weight < 0 ? 1 : LESS } : other)));
    $('chips').children[index]?.querySelector('.sign').focus();
  },

  drop(part) {
    this.set(this.parts.filter((other) => other !== part));
    $('search-input').focus();
  },

  async crop(part) {
    const region = await chooseRegion(part.preview, part.region);
    if (region === undefined) return;
    this.set(this.parts.map((other) => (other === part ? { ...part, key: ++lastPart, region } : other)));
  },

  start() {
    const input = $('search-input');
    $('search').addEventListener('submit', (event) => {
      event.preventDefault();
      const text = input.value.trim();
      input.value = '';
      if (text) this.add(textPart(text));
      else go('wall', { push: true });
    });
    input.addEventListener('keydown', (event) => {
      if (event.key === 'Backspace' && !input.value && this.parts.length) this.drop(this.parts.at(-1));
      else if (event.key === 'Escape') { event.stopPropagation(); input.value = ''; input.blur(); }
      else if (event.key === 'ArrowDown' && view === 'wall' && wall.list?.total) { event.preventDefault(); wall.focus(wall.active); }
    });
    $('search-clear').addEventListener('click', () => { this.set([]); input.focus(); });
    $('search-picture').addEventListener('click', () => $('query-file').click());
    $('query-file').addEventListener('change', async () => {
      const [file] = $('query-file').files;
      if (file) this.add(await picturePart(file));
      $('query-file').value = '';
    });
  },
};

function partName(part) {
  if (part.text) return part.text;
  if (part.filter) return t('only', `${part.filter.field.replace('attributes.', '')}: ${part.filter.value}`);
  if (part.bin) return t('aBin', part.bin.label ?? t('unknown'));
  const name = part.name || t('aPicture');
  return part.region ? t('aRegion', name) : name;
}

/** A small square of a picture, or of a part of it. */
function chipPicture(part) {
  const canvas = h('canvas', { width: 56, height: 56, 'aria-hidden': 'true' });
  const image = new Image();
  image.onload = () => {
    const [left, top, width, height] = part.region ?? [0, 0, 1, 1];
    const [w, h_] = [width * image.naturalWidth, height * image.naturalHeight];
    const side = Math.min(w, h_);
    const x = left * image.naturalWidth + (w - side) / 2;
    const y = top * image.naturalHeight + (h_ - side) / 2;
    canvas.getContext('2d').drawImage(image, x, y, side, side, 0, 0, 56, 56);
  };
  image.src = part.preview ?? thumbnailOf(part.item, part.region ? 640 : 160, part.modified);
  return canvas;
}

/** As the API wants the parts. */
function asQuery(parts) {
  return parts.filter((part) => part.weight !== undefined).map(({ text, image, item, region, weight }) => ({
    ...(text ? { text } : image ? { image } : { item }), ...(region ? { region } : {}), weight,
  }));
}

/** The list that answers a query: the collection, what was found, or one bin of the label board. */
function makeList(parts) {
  const { filter } = query;
  const wanted = asQuery(parts);
  const bin = parts.find((part) => part.bin)?.bin;
  let load;
  if (bin) {
    load = async (offset, limit, signal) => {
      const answer = await call('POST', '/v1/recognize/items', { body: { ...bin.request, bin: bin.number, offset, limit }, signal });
      const found = answer.data.find((row) => row.bin === bin.number);
      return { data: found?.data ?? [], total: found?.count ?? 0 };
    };
  } else if (wanted.length) {
    load = (offset, limit, signal) => call('POST', '/v1/search', { body: { query: wanted, ...(filter ? { filter } : {}), offset, limit }, signal });
  } else {
    const more = filter ? `&filter=${encodeURIComponent(JSON.stringify(filter))}` : '';
    load = (offset, limit, signal) => call('GET', `/v1/items?offset=${offset}&limit=${limit}&order=newest${more}`, { signal });
  }
  const list = new PagedList(load, () => {
    if (wall.list !== list) return;
    if (list.problem && list.items.size) toast(`${list.problem.title} ${list.problem.message}`, 'bad');
    wall.render();
  });
  return list;
}

/* ---------------------------------------------------------------------------------------------------- regions ---- */

const LEAST_REGION = 0.02;

/** Lets one choose a part of a picture: by dragging, by touch once it was asked for, or by keys. */
class RegionPicker {
  /**
   * @param {HTMLElement} frame fits the picture exactly
   * @param {(region: number[] | null) => void} changed called when a region was chosen or moved
   * @param {() => void} entered called when Enter is pressed on it
   */
  constructor(frame, changed, entered) {
    Object.assign(this, { frame, changed, entered, region: null, drag: null });
    const corners = ['nw', 'ne', 'sw', 'se'].map((corner) => h('span', { class: `corner ${corner}`, 'data-corner': corner }));
    this.box = h('div', { class: 'region', tabindex: 0, role: 'group', hidden: true, onkeydown: (event) => this.keydown(event) }, ...corners);
    frame.append(this.box);
    frame.classList.add('pickable');
    frame.addEventListener('pointerdown', (event) => this.down(event));
    frame.addEventListener('pointermove', (event) => this.move(event));
    frame.addEventListener('pointerup', () => this.up());
    frame.addEventListener('pointercancel', () => this.up());
  }

  set(region) {
    this.region = region;
    this.box.hidden = !region;
    this.frame.classList.toggle('picking', Boolean(region));
    if (region) {
      ['left', 'top', 'width', 'height'].forEach((side, index) => { this.box.style[side] = `${100 * region[index]}%`; });
      this.box.setAttribute('aria-label', t('regionBox', ...region.map(percent)));
    }
    this.changed(region);
  }

  /** Begin in the middle, for keys and touch. */
  begin() {
    this.set(this.region ?? [0.25, 0.25, 0.5, 0.5]);
    this.box.focus();
  }

  share(event) {
    const rect = this.frame.getBoundingClientRect();
    return [clamp((event.clientX - rect.left) / rect.width, 0, 1), clamp((event.clientY - rect.top) / rect.height, 0, 1)];
  }

  down(event) {
    if (event.button !== 0 || (event.pointerType === 'touch' && !this.region)) return;
    event.preventDefault();
    const [x, y] = this.share(event);
    const { corner } = event.target.dataset;
    const [left, top, width, height] = this.region ?? [0, 0, 0, 0];
    if (corner) this.drag = { anchor: [corner.endsWith('w') ? left + width : left, corner.startsWith('n') ? top + height : top] };
    else if (event.target === this.box) this.drag = { grip: [x - left, y - top] };
    else this.drag = { anchor: [x, y] };
    this.frame.setPointerCapture(event.pointerId);
  }

  move(event) {
    if (!this.drag) return;
    const [x, y] = this.share(event);
    if (this.drag.grip) {
      const [, , width, height] = this.region;
      this.set([clamp(x - this.drag.grip[0], 0, 1 - width), clamp(y - this.drag.grip[1], 0, 1 - height), width, height]);
      return;
    }
    const [ax, ay] = this.drag.anchor;
    this.set([Math.min(x, ax), Math.min(y, ay), Math.abs(x - ax), Math.abs(y - ay)]);
  }

  up() {
    if (!this.drag) return;
    this.drag = null;
    if (this.region && (this.region[2] < LEAST_REGION || this.region[3] < LEAST_REGION)) this.set(null);
  }

  keydown(event) {
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (by) this.nudge(0.02 * by[0], 0.02 * by[1], event.shiftKey);
    else if (event.key === 'Enter') this.entered();
    else if (event.key === 'Escape') this.set(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  nudge(dx, dy, resize) {
    const [left, top, width, height] = this.region;
    if (resize) this.set([left, top, clamp(width + dx, 0.05, 1 - left), clamp(height + dy, 0.05, 1 - top)]);
    else this.set([clamp(left + dx, 0, 1 - width), clamp(top + dy, 0, 1 - height), width, height]);
  }
}

/** Ask for a part of a picture: a region, null for the whole, undefined for neither. */
function chooseRegion(source, region) {
  const dialog = $('crop');
  const frame = $('crop-frame');
  frame.replaceChildren(h('img', { src: source, alt: '', draggable: 'false' }));
  const picker = new RegionPicker(frame, () => {}, () => dialog.close('yes'));
  picker.set(region ?? [0.25, 0.25, 0.5, 0.5]);
  dialog.returnValue = '';
  dialog.showModal();
  picker.box.focus();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      resolve(dialog.returnValue === 'yes' ? picker.region : dialog.returnValue === 'whole' ? null : undefined);
      frame.replaceChildren();
    }, { once: true });
  });
}

/* ------------------------------------------------------------------------------------------------------ panel ---- */

const NEIGHBORS = 12;

/** One picture: large, what is known of it, and what is like it. */
const panel = {
  item: null, problem: null, opener: null, picker: null, latest: new Latest(),

  /** Show an item. Without its facts (from an address or the map), they are fetched. */
  async open(item, { focus = false, remember = true } = {}) {
    const signal = this.latest.next();
    const wasOpen = !$('panel').hidden;
    if (!wasOpen) this.opener = document.activeElement;
    Object.assign(this, { item, problem: null });
    $('panel').hidden = false;
    document.body.classList.add('has-panel');
    this.modal();
    this.render();
    $('panel').scrollTop = 0;
    if (remember) writeAddress({ push: !wasOpen });
    if (focus) $('panel-title').focus();
    wall.render();
    try {
      if (item.name === undefined) await this.complete(item.id, signal);
      await this.fillBelow(signal);
    } catch (error) {
      if (isAbort(error)) return;
      if (!(error instanceof ServerError)) throw error;
      this.problem = error;
      this.render();
    }
  },

  async complete(id, signal) {
    const item = await call('GET', `/v1/items/${id}`, { signal });
    this.item = item;
    this.render();
  },

  close({ remember = true } = {}) {
    if ($('panel').hidden) return;
    this.latest.next();
    const hadFocus = $('panel').contains(document.activeElement);
    const { item } = this;
    $('panel').hidden = true;
    $('panel').replaceChildren();
    document.body.classList.remove('has-panel');
    Object.assign(this, { item: null, picker: null });
    talk.end();
    this.modal();
    wall.render();
    if (remember) writeAddress({ push: true });
    if (hadFocus || document.activeElement === document.body) this.giveBack(item);
  },

  giveBack(item) {
    const place = view === 'wall' && item ? wall.list.placeOf(item.id) : -1;
    if (place >= 0) wall.focus(place);
    else if (this.opener?.isConnected) this.opener.focus();
    if (document.activeElement === document.body) $('search-input').focus();
  },

  /** On a narrow page the panel covers the rest, which then cannot be reached by Tab. */
  modal() {
    const covers = !$('panel').hidden && isNarrow();
    for (const node of [$('main'), ...document.querySelectorAll('.top, .bar')]) node.inert = covers;
  },

  render() {
    if (!this.item) return;
    const { item, problem } = this;
    const name = item.name ?? (problem ? '' : t('loading'));
    const title = h('h2', { id: 'panel-title', tabindex: -1 }, problem?.status === 404 ? t('gone') : name);
    const head = h('div', { class: 'panel-head' }, title, h('div', { class: 'buttons' }, ...this.headButtons()));
    const body = problem && item.name === undefined ? this.problemBody() : this.body();
    const below = ['panel-labels', 'panel-neighbors'].map((id) => ($(id)?.dataset.of === item.id ? $(id) : h('div', { id })));
    const focused = $('panel').contains(document.activeElement) ? controlName(document.activeElement) : null;
    $('panel').replaceChildren(head, ...body, ...below);
    translate($('panel'));
    if (focused === null) return;
    const same = [...$('panel').querySelectorAll('button, input')].find((node) => controlName(node) === focused);
    (same ?? title).focus();
  },

  problemBody() {
    const { item, problem } = this;
    return problem.status === 404 ? [] : [h('div', { class: 'state' }, ...failure(problem, () => this.open(item)))];
  },

  headButtons() {
    const { item } = this;
    const place = view === 'wall' ? wall.list?.placeOf(item.id) ?? -1 : -1;
    const around = place < 0 ? [] : [
      button('left', 'previous', () => this.step(-1), { class: 'quiet', disabled: place === 0 }),
      button('right', 'next', () => this.step(1), { class: 'quiet', disabled: place === wall.list.total - 1 }),
    ];
    const rename = session.canWrite && item.name !== undefined ? [button('pencil', 'rename', () => this.rename(), { class: 'quiet' })] : [];
    return [...rename, ...around, button('close', 'close', () => this.close(), { class: 'quiet' })];
  },

  step(by) {
    const key = by < 0 ? 'previous' : 'next';
    const place = wall.list.placeOf(this.item.id) + by;
    const item = wall.list.get(place);
    if (!item) return;
    wall.focus(place);
    this.open(item);
    $('panel').querySelector(`[data-t-label=${key}]:enabled`)?.focus();
  },

  body() {
    const { item } = this;
    return [this.preview(), this.actions(), ...(item.name === undefined ? [] : [...talk.section(item), this.facts(), this.attributes()])];
  },

  preview() {
    const { item } = this;
    const image = h('img', { alt: item.name === undefined ? '' : t('preview', item.name), draggable: 'false' });
    if (item.width) { image.width = item.width; image.height = item.height; }
    showPicture(image, thumbnailOf(item.id, 1280, item.modified));
    const frame = h('div', { class: 'frame' }, image);
    const search = () => { if (this.picker.region) query.set([itemPart(item, 1, this.picker.region.map((share) => Number(share.toFixed(4))))]); };
    const tools = h(
      'div', { class: 'region-tools', hidden: true },
      button('search', 'searchRegion', search, { class: 'primary' }), button('close', 'clearRegion', () => this.picker.set(null), { class: 'quiet' }),
    );
    this.picker = new RegionPicker(frame, (region) => { tools.hidden = !region; }, search);
    return h('div', { class: 'preview' }, frame, tools);
  },

  actions() {
    const { item } = this;
    const nodes = [
      button('plus', 'moreLike', () => query.add(itemPart(item, 1))),
      button('minus', 'lessLike', () => query.add(itemPart(item, LESS))),
      button('crop', 'chooseRegion', () => this.picker.begin()),
    ];
    if (session.canWrite && item.name !== undefined) nodes.push(button('trash', 'remove', () => askDelete(item), { class: 'danger' }));
    return h('div', { class: 'actions' }, ...nodes);
  },

  facts() {
    const { item } = this;
    const rows = [
      ['similarity', item.similarity === undefined ? null : decimals(item.similarity)],
      ['dimensions', `${number(item.width)} × ${number(item.height)}`], ['format', item.format], ['fileSize', bytes(item.size)],
      ['taken', item.taken && moment(item.taken)], ['modified', moment(item.modified)],
      ['origin', t(item.uploaded ? 'uploaded' : 'fromFolder')], ['id', h('code', {}, item.id)],
    ].filter(([, value]) => value);
    return h('section', {}, h('h3', { t: 'facts' }), h('dl', { class: 'facts' }, ...rows.flatMap(([key, value]) => [h('dt', { t: key }), h('dd', {}, value)])));
  },

  attributes() {
    const { item } = this;
    const rows = Object.entries(item.attributes).map(([key, value]) => this.attributeRow(key, value));
    const section = h('section', {}, h('h3', { t: 'attributes' }), ...(rows.length ? [h('ul', { class: 'attributes' }, ...rows)] : []));
    if (session.canWrite) section.append(this.newAttribute());
    else if (!rows.length) section.append(h('p', { class: 'note', t: 'noAttributes' }));
    return section;
  },

  attributeRow(key, value) {
    const text = String(value);
    const only = h('button', { type: 'button', class: 'quiet', 'aria-label': t('onlyThese', key, text), title: t('onlyThese', key, text), onclick: () => query.add(filterPart(`attributes.${key}`, value)) }, icon('filter'));
    if (!session.canWrite) return h('li', {}, h('span', { class: 'key' }, key), h('span', { class: 'value' }, text), only);
    const input = h('input', { type: 'text', value: text, 'aria-label': t('attributeValue', key), maxlength: 1000 });
    input.addEventListener('change', () => this.change({ attributes: { ...this.item.attributes, [key]: asAttribute(input.value) } }));
    const out = h('button', { type: 'button', class: 'quiet', 'aria-label': t('attributeOut', key), title: t('attributeOut', key), onclick: () => this.dropAttribute(key) }, icon('close'));
    return h('li', {}, h('span', { class: 'key' }, key), input, only, out);
  },

  newAttribute() {
    const key = h('input', { type: 'text', label: 'attributeKey', 'data-t-placeholder': 'name', placeholder: t('name'), maxlength: 100, required: true });
    const value = h('input', { type: 'text', label: 'newValue', 'data-t-placeholder': 'newValue', placeholder: t('newValue'), maxlength: 1000, required: true });
    const form = h('form', { class: 'new-attribute' }, key, value, h('button', { t: 'addAttribute' }));
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      if (key.value.trim()) this.change({ attributes: { ...this.item.attributes, [key.value.trim()]: asAttribute(value.value) } });
    });
    return form;
  },

  dropAttribute(key) {
    const { [key]: _, ...others } = this.item.attributes;
    this.change({ attributes: others });
  },

  async change(body) {
    const { item } = this;
    const changed = await attempt(() => call('PATCH', `/v1/items/${item.id}`, { body }));
    if (!changed) return;
    toast(t('saved'));
    wall.list.replace(changed);
    if (this.item?.id !== item.id) return;
    this.item = { ...item, ...changed };
    this.render();
  },

  async rename() {
    const name = await ask({ title: t('renameTitle'), label: t('name'), value: this.item.name, yes: t('save'), longest: 255 });
    if (name && name !== this.item?.name) await this.change({ name });
  },

  /** What takes a moment: labels of the board, and neighbors. */
  async fillBelow(signal) {
    const { item } = this;
    const request = board.request();
    const [named, near] = await Promise.all([
      request ? call('POST', '/v1/recognize', { body: { ...request.choice, items: [item.id], top_k: 5 }, signal }) : null,
      call('POST', '/v1/search', { body: { item: item.id, limit: NEIGHBORS + 1 }, signal }),
    ]);
    if (this.item.id !== item.id) return;
    if (named) fillSection('panel-labels', item.id, 'labelsHere', h('ul', { class: 'predictions' }, ...named.data[0].predictions.map(predictionRow)));
    const others = near.data.filter((match) => match.id !== item.id).slice(0, NEIGHBORS);
    if (others.length) fillSection('panel-neighbors', item.id, 'neighbors', h('ul', { class: 'neighbors' }, ...others.map(neighborTile)));
  },
};

/* ----------------------------------------------------------------------------------------------------- asking ---- */

const ASKED_SIZE = 1280;  // what a model is shown, in pixels of the longer side

/** A conversation about the picture in the panel. Another picture begins another one. */
const talk = {
  item: null, node: null, messages: [], running: null,

  /** What the panel shows: nothing where nobody answers; the same as before for the same picture. */
  section(item) {
    if (!session.chat) return [];
    if (this.item?.id !== item.id) {
      this.end();
      this.node = this.build();
    }
    this.item = item;
    return [this.node];
  },

  build() {
    const input = h('input', { type: 'text', label: 'talkTitle', 'data-t-placeholder': 'talkHint', placeholder: t('talkHint'), maxlength: 1000, autocomplete: 'off', required: true });
    const send = h('button', { class: 'primary', t: 'talkSend' });
    const stop = h('button', { type: 'button', t: 'stop', hidden: true, onclick: () => { input.focus(); this.running?.abort(); } });
    const form = h('form', {}, input, send, stop);
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      if (!this.running && input.value.trim()) this.ask(input.value.trim());
    });
    return h('section', { class: 'talk' }, h('h3', { t: 'talkTitle' }), h('div', { class: 'log', role: 'log', label: 'talkLog', tabindex: 0, hidden: true }), form);
  },

  end() {
    this.running?.abort();
    Object.assign(this, { item: null, node: null, messages: [], running: null });
  },

  /** Ask; what was said when it is stopped or fails counts as the answer. */
  async ask(words) {
    const { item, node, messages } = this;
    const running = new AbortController();
    this.running = running;
    this.setBusy(node, true);
    const [input, log] = [node.querySelector('input'), node.querySelector('.log')];
    const said = h('span', {});
    const line = h('div', { class: 'answer', 'aria-busy': 'true' }, h('span', { class: 'hush', t: 'talkAnswer' }), said);
    log.append(h('div', { class: 'question' }, h('span', { class: 'hush', t: 'talkYou' }), h('span', {}, words)), line);
    input.value = '';
    const end = await this.hear(item, [...messages, { role: 'user', content: words }], running.signal, said).catch((error) => error);
    if (end instanceof Error && !isAbort(end) && !(end instanceof ServerError)) throw end;
    if (said.textContent) messages.push({ role: 'user', content: words }, { role: 'assistant', content: said.textContent });
    else if (end instanceof ServerError && !input.value) input.value = words;
    line.append(...this.note(end, said.textContent));
    line.removeAttribute('aria-busy');
    log.scrollTop = log.scrollHeight;
    if (this.running === running) this.running = null;
    this.setBusy(node, false);
  },

  /** Why an answer ends, where that is not plain. */
  note(end, said) {
    if (isAbort(end)) return [h('p', { class: 'note', t: 'talkStopped' })];
    if (end instanceof ServerError) return [h('p', { class: 'problem' }, `${end.title} ${end.message}`)];
    if (end === 'length') return [h('p', { class: 'note', t: 'talkCut' })];
    return said ? [] : [h('p', { class: 'note', t: 'talkNothing' })];
  },

  /** Write an answer into a node while it comes; why it ended. */
  async hear(item, messages, signal, said) {
    const [first, ...others] = messages;
    const asked = [{ type: 'image_url', image_url: { url: await this.picture(item, signal) } }, { type: 'text', text: first.content }];
    const body = { messages: [{ role: 'user', content: asked }, ...others], stream: true };
    const answer = await call('POST', '/v1/chat/completions', { body, signal, unread: true });
    const log = said.closest('.log');
    for await (const { delta, finish_reason: reason } of events(answer)) {
      const follows = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
      if (delta.content) said.append(delta.content);
      if (follows) log.scrollTop = log.scrollHeight;
      if (reason) return reason;
    }
    throw new ServerError(0, { message: t('broke') });
  },

  async picture(item, signal) {
    const answer = await call('GET', thumbnailOf(item.id, ASKED_SIZE, item.modified), { signal, unread: true });
    return dataUrl(await answer.blob());
  },

  setBusy(node, busy) {
    const [send, stop] = node.querySelectorAll('form button');
    Object.assign(send, { hidden: busy });
    Object.assign(stop, { hidden: !busy });
    node.querySelector('.log').hidden = false;
  },
};

/** What a streamed answer of the server tells, one event after the other. */
async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  try {
    for (;;) {
      const { value, done } = await reader.read().catch((error) => { throw isAbort(error) ? error : new ServerError(0); });
      if (done) return;
      const lines = (rest + value).split('\n');
      rest = lines.pop();
      for (const line of lines.filter((one) => one.startsWith('data: {'))) {
        const { error, choices } = JSON.parse(line.slice(6));
        if (error) throw new ServerError(500, error);
        if (choices.length) yield choices[0];
      }
    }
  } finally {
    reader.cancel().catch(() => {});  // whoever reads no further wants no more of it
  }
}

/** By what a control is found again after everything was drawn anew. */
function controlName(node) {
  return node.getAttribute('aria-label') ?? node.textContent;
}

function fillSection(id, of, key, content) {
  $(id).dataset.of = of;
  $(id).replaceChildren(h('section', {}, h('h3', { t: key }), content));
}

function predictionRow({ label, probability }) {
  const bar = h('span', { class: 'meter', 'aria-hidden': 'true' });
  bar.style.setProperty('--share', probability);
  return h('li', {}, h('span', { class: 'key' }, label), bar, h('span', { class: 'figure' }, percent(probability)));
}

function neighborTile(match) {
  const image = h('img', { alt: '' });
  showPicture(image, thumbnail(match, 96));
  return h('li', {}, h('button', { type: 'button', class: 'tile', 'aria-label': itemLabel(match), title: itemLabel(match), onclick: () => panel.open(match, { focus: true }) }, image));
}

/** What was typed → a number, a truth value or a text. "007" stays a text. */
function asAttribute(text) {
  if (text === 'true' || text === 'false') return text === 'true';
  return text.trim() !== '' && String(Number(text)) === text && Number.isFinite(Number(text)) ? Number(text) : text;
}

async function askDelete(item) {
  if (!session.canWrite) { toast(t('errors')[403], 'bad'); return; }
  const detail = t(item.uploaded ? 'deleteUpload' : 'deleteFile', item.name);
  if (!await ask({ title: t('deleteTitle'), detail, yes: t('remove'), danger: true })) return;
  await attempt(async () => {
    try {
      await call('DELETE', `/v1/items/${item.id}`);
    } catch (error) {
      if (error.status !== 404) throw error; // somebody else was quicker
    }
    toast(t('deleted', item.name));
    const place = wall.list.placeOf(item.id);
    if (panel.item?.id === item.id) panel.close();
    wall.list.remove(item.id);
    map.stale = board.stale = true;
    if (view !== 'wall') show(view);
    else if (place >= 0 && wall.list.total) wall.focus(Math.min(place, wall.list.total - 1));
    else $('search-input').focus();
  });
}

/* ---------------------------------------------------------------------------------------------------- uploads ---- */

const BATCH_FILES = 8;
const BATCH_BYTES = 16e6;
const SENDERS = 2;

/** Pictures on their way to the collection, and what became of them. */
const tray = {
  waiting: [], done: 0, all: 0, added: 0, rejected: [], senders: 0, controller: new AbortController(),

  /** Add files; what is certainly no picture is not even sent. */
  add(files) {
    const pictures = files.filter((file) => !file.type || file.type.startsWith('image/'));
    if (!files.length) { toast(t('notPictures'), 'bad'); return; }
    if (!this.senders) Object.assign(this, { done: 0, all: 0, added: 0, rejected: [], controller: new AbortController() });
    for (const file of files) if (!pictures.includes(file)) this.reject(file, 'not a picture');
    this.waiting.push(...pictures);
    this.all += files.length;
    this.done += files.length - pictures.length;
    this.render();
    while (this.senders < Math.min(SENDERS, Math.ceil(this.waiting.length / BATCH_FILES))) this.send();
  },

  reject(file, reason, detail = '', again = false) {
    this.rejected.push({ file, reason, detail, again });
  },

  nextBatch() {
    const batch = [];
    let size = 0;
    while (this.waiting.length && batch.length < BATCH_FILES && (!batch.length || size + this.waiting[0].size <= BATCH_BYTES)) {
      batch.push(this.waiting.shift());
      size += batch.at(-1).size;
    }
    return batch;
  },

  async send() {
    this.senders += 1;
    while (this.waiting.length) {
      await this.sendBatch(this.nextBatch());
      this.render();
    }
    this.senders -= 1;
    if (this.senders) return;
    this.render();
    if (this.added) collectionChanged();
    if (!this.rejected.length) setTimeout(() => { if (!this.senders && !this.rejected.length) this.close(); }, 5000);
  },

  async sendBatch(batch) {
    const body = new FormData();
    for (const file of batch) body.append('file', file, file.name || 'picture');
    try {
      const answer = await call('POST', '/v1/items', { body, signal: this.controller.signal });
      this.added += answer.data.length;
      for (const one of answer.rejected) this.reject(batch[one.index] ?? one, one.reason, one.detail);
      this.done += batch.length;
    } catch (error) {
      await this.failed(batch, error);
    }
  },

  /** One picture that is too large or bad must not cost the others of its batch. */
  async failed(batch, error) {
    if (!isAbort(error) && !(error instanceof ServerError)) throw error;
    if (batch.length > 1 && (error.status === 413 || error.status === 400)) {
      for (const file of batch) await this.sendBatch([file]);
      return;
    }
    this.done += batch.length;
    const rest = error.status === 507 || isAbort(error) ? this.waiting.splice(0) : [];
    this.done += rest.length;
    const reason = isAbort(error) ? 'stopped' : error.code in t('reasons') ? error.code : error.title;
    for (const file of [...batch, ...rest]) this.reject(file, reason, error.message ?? '', error.status !== 413 && error.status !== 400);
  },

  close() {
    Object.assign(this, { done: 0, all: 0, added: 0, rejected: [] });
    this.render();
  },

  again() {
    const files = this.rejected.filter((one) => one.again).map((one) => one.file);
    this.rejected = this.rejected.filter((one) => !one.again);
    this.all -= files.length;
    this.done -= files.length;
    this.add(files);
  },

  render() {
    const box = $('tray');
    box.hidden = !this.all;
    if (!this.all) { box.replaceChildren(); return; }
    const busy = this.senders > 0;
    const ended = [this.added ? t('added', number(this.added)) : null, this.rejected.length ? t('notAdded', number(this.rejected.length)) : null];
    const text = busy ? t('adding', number(Math.min(this.done + 1, this.all)), number(this.all)) : ended.filter(Boolean).join(' · ');
    const head = h('div', { class: 'tray-head' }, h('p', { role: 'status' }, text), busy
      ? h('button', { type: 'button', class: 'small', t: 'stop', onclick: () => this.controller.abort() })
      : h('button', { type: 'button', class: 'quiet small', label: 'close', onclick: () => this.close() }, icon('close')));
    const bar = h('progress', { max: this.all, value: this.done, label: 'uploads' });
    const list = h('ul', { class: 'rejected', tabindex: this.rejected.length > 3 ? 0 : null }, ...this.rejected.map(({ file, reason, detail }) => h(
      'li', { title: detail }, h('b', {}, file.name), ' ', h('span', {}, t('reasons')[reason] ?? reason),
    )));
    const again = this.rejected.some((one) => one.again) && !busy ? h('button', { type: 'button', class: 'small', t: 'again', onclick: () => this.again() }) : null;
    box.replaceChildren(...[head, busy ? bar : null, this.rejected.length ? list : null, again].filter(Boolean));
  },

  start() {
    $('add').addEventListener('click', () => $('files').click());
    $('files').addEventListener('change', () => {
      if ($('files').files.length) this.add([...$('files').files]);
      $('files').value = '';
    });
    addEventListener('beforeunload', (event) => { if (this.senders) event.preventDefault(); });
  },
};

/** Show what came or went. */
function collectionChanged() {
  map.stale = board.stale = true;
  wall.list?.refresh();
  if (view !== 'wall') show(view);
}

/** Dropping: on the search field to search, elsewhere to add. */
const dropping = {
  depth: 0,

  start() {
    addEventListener('dragenter', (event) => this.over(event));
    addEventListener('dragover', (event) => this.over(event));
    addEventListener('dragleave', (event) => { if (!event.relatedTarget) this.end(); });
    addEventListener('dragend', () => this.end());
    addEventListener('drop', (event) => this.drop(event));
    addEventListener('paste', (event) => this.paste(event));
  },

  kind(event) {
    const types = [...(event.dataTransfer?.types ?? [])];
    return types.includes(ITEM_TYPE) ? 'item' : types.includes('Files') ? 'files' : '';
  },

  searches(event) {
    return Boolean(event.target.closest?.('#search')) || !session.canWrite;
  },

  over(event) {
    const kind = this.kind(event);
    if (!kind || document.querySelector('dialog[open]')) return;
    event.preventDefault();
    const searches = this.searches(event);
    event.dataTransfer.dropEffect = searches || kind === 'files' ? 'copy' : 'none';
    $('search').classList.toggle('target', searches);
    $('search').classList.add('droppable');
    $('drop').hidden = kind !== 'files';
    $('drop').classList.toggle('searching', searches);
    const text = searches ? t('dropSearch') : t('dropAdd');
    if ($('drop-add').dataset.text !== text) {
      $('drop-add').dataset.text = text;
      $('drop-add').replaceChildren(h('b', {}, text), ...(searches ? [] : [h('span', {}, t('dropOr'))]));
    }
  },

  end() {
    $('drop').hidden = true;
    $('search').classList.remove('target', 'droppable');
  },

  async drop(event) {
    const kind = this.kind(event);
    this.end();
    if (!kind) return;
    event.preventDefault();
    const searches = this.searches(event);
    if (kind === 'item') {
      if (searches) query.add(itemPart(JSON.parse(event.dataTransfer.getData(ITEM_TYPE)), 1));
      return;
    }
    const files = await filesOf(event.dataTransfer);
    if (searches) await searchBy(files);
    else tray.add(files);
  },

  async paste(event) {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length || document.querySelector('dialog[open]')) return;
    event.preventDefault();
    if (this.searches(event)) await searchBy(files);
    else tray.add(files);
  },
};

async function searchBy(files) {
  const pictures = files.filter((file) => !file.type || file.type.startsWith('image/')).slice(0, 8);
  if (!pictures.length) { toast(t('notPictures'), 'bad'); return; }
  query.set([...query.parts.filter((part) => !part.bin), ...await Promise.all(pictures.map(picturePart))]);
}

/** All files of a drop, those in folders included. */
async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  const files = [];
  const visit = async (entry) => {
    if (entry.isFile) { files.push(await new Promise((resolve, reject) => { entry.file(resolve, reject); })); return; }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
      if (!some.length) return;
      for (const one of some) if (!one.name.startsWith('.')) await visit(one);
    }
  };
  for (const entry of entries) await visit(entry);
  return files;
}

/* ------------------------------------------------------------------------------------------------ label board ---- */

const BIN_PICTURES = 24;
const SHOWN_BINS = 60; // of more, the empty ones are left out
const FLIGHT = 420;

/** Every picture of the collection, sorted by what one types. */
const board = {
  labels: [], set: '', sets: [], answer: null, problem: null, stale: true, latest: new Latest(), tiles: new Map(),

  start() {
    this.labels = preferences.labels.filter((label) => typeof label === 'string');
    $('threshold').value = preferences.threshold;
    $('templates').value = preferences.templates;
    if (!$('templates').value) $('templates').value = 'none';
    this.sortSoon = debounce(280, () => this.sort());
    const input = $('board-input');
    $('board-form').addEventListener('submit', (event) => event.preventDefault());
    input.addEventListener('keydown', (event) => this.keydown(event));
    input.addEventListener('input', () => this.typed());
    $('threshold').addEventListener('input', () => { preferences.set('threshold', this.least); this.showThreshold(); this.sortSoon(); });
    $('templates').addEventListener('change', () => { preferences.set('templates', $('templates').value); this.sort(); });
    $('sets').addEventListener('change', () => this.choose($('sets').value));
    $('set-save').addEventListener('click', () => this.save());
    $('set-delete').addEventListener('click', () => this.removeSet());
  },

  get least() { return Number($('threshold').value); },

  get draft() { return $('board-input').value.trim(); },

  /** Labels with what is being typed. */
  all() {
    return this.draft && !this.labels.includes(this.draft) ? [...this.labels, this.draft] : this.labels;
  },

  /** What /v1/recognize and /v1/recognize/items are asked for; null without labels. */
  request() {
    const isLarge = this.set && this.sets.find((one) => one.name === this.set)?.labels === null;
    const labels = this.all();
    if (!isLarge && !labels.length) return null;
    const choice = isLarge ? { label_set: this.set } : { labels, templates: $('templates').value };
    return { choice, sort: { ...choice, min_probability: this.least } };
  },

  keydown(event) {
    if (event.isComposing) return; // Enter ends a Korean syllable first
    const input = $('board-input');
    if (event.key === 'Enter' || event.key === ',') { event.preventDefault(); this.commit(); }
    else if (event.key === 'Backspace' && !input.value && this.labels.length) this.setLabels(this.labels.slice(0, -1));
  },

  typed() {
    const input = $('board-input');
    if (/[,\n]/.test(input.value)) this.commit();
    else this.sortSoon();
  },

  commit() {
    const input = $('board-input');
    const typed = input.value.split(/[,\n]/).map((label) => label.trim()).filter(Boolean);
    input.value = '';
    if (typed.length) this.setLabels([...new Set([...this.labels, ...typed])]);
  },

  setLabels(labels, set = '') {
    Object.assign(this, { labels, set });
    preferences.set('labels', labels);
    this.renderForm();
    this.sort();
  },

  async show() {
    this.renderForm();
    if (this.stale) {
      this.stale = false;
      this.sort();
    }
    const answer = await attempt(() => call('GET', '/v1/labels'));
    if (answer) { this.sets = answer.data; this.renderForm(); }
  },

  async sort() {
    const signal = this.latest.next();
    const request = this.request();
    if (!request) { Object.assign(this, { answer: null, problem: null }); this.render(); return; }
    $('bins').setAttribute('aria-busy', 'true');
    try {
      this.answer = await call('POST', '/v1/recognize/items', { body: { ...request.sort, limit: BIN_PICTURES }, signal });
      this.problem = null;
    } catch (error) {
      if (isAbort(error)) return;
      if (!(error instanceof ServerError)) throw error;
      this.problem = error;
    }
    $('bins').setAttribute('aria-busy', 'false');
    this.render();
  },

  relabel() {
    this.tiles.clear();
    this.renderForm();
    this.render();
  },

  renderForm() {
    const chips = this.labels.map((label) => h('li', { class: 'chip' }, h('span', { class: 'chip-text' }, label), h('button', {
      type: 'button', class: 'out', 'aria-label': t('labelChip', label), title: t('labelChip', label),
      onclick: () => { this.setLabels(this.labels.filter((other) => other !== label)); $('board-input').focus(); },
    }, icon('close'))));
    $('board-chips').replaceChildren(...chips);
    $('board-chips').hidden = !chips.length;
    const options = this.sets.map((one) => h('option', { value: one.name }, one.labels ? one.name : t('setTooLarge', one.name, number(one.count))));
    $('sets').replaceChildren(h('option', { value: '', t: 'ownLabels' }), ...options);
    $('sets').value = this.set;
    $('set-save').hidden = !session.canWrite;
    $('set-save').disabled = !this.labels.length;
    $('set-delete').hidden = !session.canWrite || !this.set;
    this.showThreshold();
  },

  showThreshold() {
    $('threshold-text').textContent = t('threshold', this.least ? percent(this.least) : null);
  },

  countText() {
    return this.answer ? t('sorted', number(this.answer.total), number(this.answer.data.filter((bin) => bin.label !== null).length)) : '';
  },

  render() {
    const focused = document.activeElement?.closest?.('.bins .tile')?.dataset.id;
    const before = new Map([...this.tiles].map(([id, tile]) => [id, tile.isConnected ? tile.getBoundingClientRect() : null]));
    const tiles = new Map();
    const all = this.problem ? [] : this.answer?.data ?? [];
    const bins = all.length > SHOWN_BINS ? all.filter((bin) => bin.count) : all;
    $('bins').replaceChildren(...bins.map((bin) => this.bin(bin, tiles)));
    this.tiles = tiles;
    this.fly(before);
    if (focused) tiles.get(focused)?.focus({ preventScroll: true });
    this.renderState();
    showCount();
  },

  renderState() {
    const box = $('board-state');
    box.hidden = Boolean(this.answer) && !this.problem;
    if (this.problem) box.replaceChildren(...failure(this.problem, () => this.sort()));
    else if (!this.answer) {
      const examples = t('boardExamples').map((labels) => h('button', { type: 'button', onclick: () => this.setLabels(labels) }, labels.join(', ')));
      box.replaceChildren(icon('eye'), h('h2', { t: 'boardTitle' }), h('p', { t: 'boardDetail' }), h('div', { class: 'buttons' }, ...examples));
    }
  },

  bin(bin, tiles) {
    const share = this.answer.total ? bin.count / this.answer.total : 0;
    const meter = h('span', { class: 'meter', 'aria-hidden': 'true' });
    meter.style.setProperty('--share', share);
    const name = bin.label ?? t('unknown');
    const heading = h('h2', {}, name, h('span', { class: 'figure' }, t('binCount', number(bin.count), percent(share))));
    const shots = h('ul', { class: 'shots' }, ...bin.data.map((item) => h('li', {}, this.tile(item, bin, tiles))));
    const more = bin.count > bin.data.length ? h('button', { type: 'button', class: 'small', 'aria-label': `${name}: ${t('binShowAll', number(bin.count))}`, onclick: () => this.showAll(bin) }, t('binShowAll', number(bin.count))) : null;
    return h('section', { class: `bin${bin.label === null ? ' unknown' : ''}`, 'aria-label': name }, heading, meter, bin.count ? shots : h('p', { class: 'note', t: 'binEmpty' }), more);
  },

  tile(item, bin, tiles) {
    const [best] = item.predictions;
    const tile = this.tiles.get(item.id) ?? this.makeTile(item);
    tiles.set(item.id, tile);
    tile.querySelector('.meter').style.setProperty('--share', best?.probability ?? 0);
    tile.querySelector('.figure').textContent = best ? percent(best.probability) : '';
    const text = best ? t('tileLabel', item.name, best.label, percent(best.probability)) : item.name;
    tile.setAttribute('aria-label', text);
    tile.title = item.predictions.map((one) => `${one.label} ${percent(one.probability)}`).join('\n') || item.name;
    tile.classList.toggle('open', panel.item?.id === item.id);
    return tile;
  },

  makeTile(item) {
    const image = h('img', { alt: '', decoding: 'async', draggable: 'false' });
    showPicture(image, thumbnail(item, 88));
    return h('button', { type: 'button', class: 'tile', 'data-id': item.id, onclick: (event) => panel.open(item, { focus: event.detail === 0 || isNarrow() }) },
      image, h('span', { class: 'meter', 'aria-hidden': 'true' }), h('span', { class: 'figure', 'aria-hidden': 'true' }));
  },

  /** Let every picture that changed its place be seen to go there. */
  fly(before) {
    if (isCalm()) return;
    for (const [id, tile] of this.tiles) {
      const from = before.get(id);
      const to = tile.getBoundingClientRect();
      if (!from) { tile.animate([{ opacity: 0 }, { opacity: 1 }], { duration: FLIGHT / 2 }); continue; }
      const [dx, dy] = [from.left - to.left, from.top - to.top];
      const isSeen = [from, to].some((rect) => rect.bottom > 0 && rect.top < innerHeight);
      if ((dx || dy) && isSeen) tile.animate([{ transform: `translate(${dx}px, ${dy}px)` }, { transform: 'none' }], { duration: FLIGHT, easing: 'cubic-bezier(.2,.8,.2,1)' });
    }
  },

  /** A bin on the wall. */
  showAll(bin) {
    query.set([{ key: ++lastPart, bin: { number: bin.bin, label: bin.label, request: this.request().sort } }]);
  },

  choose(name) {
    const set = this.sets.find((one) => one.name === name);
    if (!set) { this.set = ''; this.renderForm(); return; }
    if (['none', 'openai7', 'openai80', 'siglip', 'korean'].includes(set.templates)) $('templates').value = set.templates;
    this.setLabels(set.labels ?? [], set.name);
  },

  async save() {
    this.commit();
    const name = await ask({ title: t('setSave'), label: t('setName'), value: this.set, yes: t('save'), longest: 64, pattern: '[\\p{L}\\p{N}_\\-]{1,64}' });
    if (!name) return;
    const body = { labels: this.labels, templates: $('templates').value };
    const exists = this.sets.some((one) => one.name === name);
    const path = `/v1/labels/${encodeURIComponent(name)}`;
    const saved = await attempt(() => (exists ? call('PUT', path, { body }) : call('POST', '/v1/labels', { body: { name, ...body } })));
    if (!saved) return;
    this.set = name;
    toast(t('setSaved', name));
    await this.show();
  },

  async removeSet() {
    const name = this.set;
    if (!await ask({ title: t('setDeleteTitle', name), detail: t('setDeleteDetail'), yes: t('remove'), danger: true })) return;
    if (!await attempt(() => call('DELETE', `/v1/labels/${encodeURIComponent(name)}`))) return;
    this.set = '';
    toast(t('setDeleted', name));
    await this.show();
    $('sets').focus();
  },
};

/* -------------------------------------------------------------------------------------------------------- map ---- */

const SPACING = [52, 68]; // pixels between thumbnails on a narrow and on a wide map
const THUMB_GAP = 8;
const MAP_MARGIN = 46;
const KEPT_IMAGES = 800;
const LOADING_IMAGES = 6;
const LIST_LENGTH = 60;

/** A plane of dots and, where there is room, thumbnails. Places are in [0, 1]; `at` is the place in the middle. */
const map = {
  points: null, total: 0, problem: null, stale: true, zoom: 1, at: [0.5, 0.5], levels: [], images: new Map(), loading: 0,
  near: -1, pointers: new Map(), colors: {}, isList: false, names: new Map(), latest: new Latest(), latestName: new Latest(), latestList: new Latest(),

  start() {
    this.canvas = $('map');
    this.context = this.canvas.getContext('2d');
    new ResizeObserver(() => this.resize()).observe($('map-box'));
    this.listen();
    $('map-in').addEventListener('click', () => this.zoomBy(2));
    $('map-out').addEventListener('click', () => this.zoomBy(0.5));
    $('map-fit').addEventListener('click', () => this.fit());
    $('map-as-list').addEventListener('click', () => this.toggleList());
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.recolor());
  },

  listen() {
    const { canvas } = this;
    canvas.addEventListener('wheel', (event) => {
      event.preventDefault();
      const step = event.deltaMode === 1 ? 16 * event.deltaY : event.deltaY;
      this.zoomBy(Math.exp(-clamp(step, -200, 200) * (event.ctrlKey ? 0.01 : 0.003)), [event.offsetX, event.offsetY]);
    }, { passive: false });
    canvas.addEventListener('pointerdown', (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
      this.moved = this.pointers.size > 1;
    });
    canvas.addEventListener('pointermove', (event) => this.pointed(event));
    canvas.addEventListener('pointerup', (event) => {
      this.pointers.delete(event.pointerId);
      if (!this.moved && !this.pointers.size) this.openAt(event.offsetX, event.offsetY);
    });
    canvas.addEventListener('pointercancel', (event) => this.pointers.delete(event.pointerId));
    canvas.addEventListener('keydown', (event) => this.keydown(event));
    canvas.addEventListener('focus', () => this.draw());
    canvas.addEventListener('blur', () => this.draw());
  },

  async show() {
    this.resize();
    if (!this.stale && this.points) return;
    this.stale = false;
    const signal = this.latest.next();
    try {
      const answer = await call('GET', '/v1/map?limit=5000', { signal });
      Object.assign(this, { points: answer, total: answer.total, problem: null, levels: [], near: -1 });
    } catch (error) {
      if (isAbort(error)) return;
      if (!(error instanceof ServerError)) throw error;
      Object.assign(this, { problem: error, stale: true });
    }
    this.renderState();
    this.draw();
    if (this.isList) this.fillList();
    showCount();
  },

  renderState() {
    const isEmpty = this.points && !this.points.ids.length;
    $('map-state').hidden = !this.problem && !isEmpty;
    if (this.problem) $('map-state').replaceChildren(...failure(this.problem, () => this.show()));
    else if (isEmpty) $('map-state').replaceChildren(icon('eye'), h('h2', { t: 'emptyTitle' }), h('p', { t: 'mapEmpty' }));
  },

  countText() {
    return this.points ? t('mapCount', number(this.points.ids.length), number(this.total)) : '';
  },

  relabel() {
    setLabel($('map-as-list'), t(this.isList ? 'asMap' : 'asList'));
    if (this.isList) this.fillList();
  },

  recolor() {
    const style = getComputedStyle(document.documentElement);
    const probe = h('span');
    document.body.append(probe);
    for (const name of ['ink', 'surface', 'accent', 'line', 'muted']) {
      probe.style.color = style.getPropertyValue(`--${name}`);
      this.colors[name] = getComputedStyle(probe).color;
    }
    probe.remove();
    this.draw();
  },

  resize() {
    const { clientWidth, clientHeight } = $('map-box');
    if (!clientWidth || !clientHeight) return;
    const ratio = Math.min(devicePixelRatio, 2);
    Object.assign(this, { width: clientWidth, height: clientHeight, levels: [], spacing: SPACING[Number(clientWidth >= 600)] });
    this.scale = [Math.max(clientWidth - 2 * MAP_MARGIN, 80), Math.max(clientHeight - 2 * MAP_MARGIN, 80)];
    this.canvas.width = clientWidth * ratio;
    this.canvas.height = clientHeight * ratio;
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.paint();
  },

  /** Place → pixel. */
  pixel(index) {
    return [
      this.width / 2 + (this.points.x[index] - this.at[0]) * this.scale[0] * this.zoom,
      this.height / 2 + (this.points.y[index] - this.at[1]) * this.scale[1] * this.zoom,
    ];
  },

  /** Which points show a thumbnail at a whole power of two. Those of the coarser level stay, so zooming in takes none away. */
  level(number_) {
    if (this.levels[number_]) return this.levels[number_];
    const before = number_ ? this.level(number_ - 1) : [];
    const [sx, sy] = this.scale.map((scale) => scale * 2 ** number_ / this.spacing);
    const taken = new Map();
    const place = (index) => [this.points.x[index] * sx, this.points.y[index] * sy];
    const keep = (index) => {
      const [x, y] = place(index);
      taken.set(`${Math.floor(x)} ${Math.floor(y)}`, [...(taken.get(`${Math.floor(x)} ${Math.floor(y)}`) ?? []), index]);
    };
    const isFree = (index) => {
      const [x, y] = place(index);
      for (let column = Math.floor(x) - 1; column <= x + 1; column += 1) {
        for (let row = Math.floor(y) - 1; row <= y + 1; row += 1) {
          for (const other of taken.get(`${column} ${row}`) ?? []) {
            const [ox, oy] = place(other);
            if (Math.abs(ox - x) < 1 && Math.abs(oy - y) < 1) return false;
          }
        }
      }
      return true;
    };
    before.forEach(keep);
    const kept = [...before];
    for (let index = 0; index < this.points.ids.length; index += 1) if (isFree(index)) { keep(index); kept.push(index); }
    this.levels[number_] = kept;
    return kept;
  },

  draw() {
    if (!this.frame) this.frame = requestAnimationFrame(() => { this.frame = 0; this.paint(); });
  },

  paint() {
    if (!this.points || !this.width) return;
    const { context, width, height } = this;
    context.clearRect(0, 0, width, height);
    let whole = Math.floor(Math.log2(this.zoom) + 1e-9);
    while (whole > 0 && this.level(whole - 1).length === this.points.ids.length) whole -= 1; // all have room: they grow
    const side = Math.min((this.spacing - THUMB_GAP) * this.zoom / 2 ** whole, 112);
    const isSeen = ([x, y], margin) => x > -margin && y > -margin && x < width + margin && y < height + margin;
    const thumbs = this.level(whole).map((index) => [index, this.pixel(index)]).filter(([, place]) => isSeen(place, side));
    context.fillStyle = this.colors.muted;
    for (let index = 0; index < this.points.ids.length; index += 1) {
      const [x, y] = this.pixel(index);
      if (!isSeen([x, y], 4)) continue;
      context.beginPath();
      context.arc(x, y, 2.5, 0, 7);
      context.fill();
    }
    for (const [index, [x, y]] of thumbs) this.paintThumb(index, x, y, side);
    this.seen = { thumbs, side };
    this.paintNear();
    this.loadImages(thumbs.map(([index]) => index));
  },

  paintThumb(index, x, y, side) {
    const { context } = this;
    const image = this.images.get(this.points.ids[index]);
    const isReady = image?.complete && image.naturalWidth > 0;
    const ratio = isReady ? image.naturalWidth / image.naturalHeight : 1;
    const [w, h_] = ratio > 1 ? [side, side / ratio] : [side * ratio, side];
    if (!isReady && image === undefined) return;
    context.save();
    context.beginPath();
    context.roundRect(x - w / 2, y - h_ / 2, w, h_, 4);
    context.fillStyle = this.colors.line;
    context.fill();
    if (isReady) { context.clip(); context.drawImage(image, x - w / 2, y - h_ / 2, w, h_); }
    context.restore();
  },

  paintNear() {
    const { context } = this;
    const isKeyboard = this.canvas.matches(':focus-visible');
    if (isKeyboard && !this.pointers.size) this.setNear(this.nearest(this.width / 2, this.height / 2, Infinity));
    if (this.near < 0) return;
    const [x, y] = this.pixel(this.near);
    const isThumb = this.seen.thumbs.some(([index]) => index === this.near);
    const side = isThumb ? this.seen.side + 8 : 14;
    if (isThumb) this.paintThumb(this.near, x, y, this.seen.side);
    context.lineWidth = 3;
    context.strokeStyle = this.colors.accent;
    context.beginPath();
    context.roundRect(x - side / 2, y - side / 2, side, side, isThumb ? 8 : 7);
    context.stroke();
  },

  loadImages(indexes) {
    for (const index of indexes) {
      if (this.loading >= LOADING_IMAGES) return;
      const id = this.points.ids[index];
      if (this.images.has(id)) continue;
      const image = new Image();
      const settled = () => { this.loading -= 1; this.draw(); };
      image.onload = image.onerror = settled;
      this.loading += 1;
      this.images.set(id, image);
      image.src = thumbnailOf(id, 160);
    }
    for (const id of this.images.keys()) {
      if (this.images.size <= KEPT_IMAGES) break;
      this.images.delete(id);
    }
  },

  /** The picture at a pixel: a thumbnail that covers it, or else the closest point within reach; -1 for none. */
  nearest(x, y, reach) {
    const { thumbs, side } = this.seen ?? { thumbs: [], side: 0 };
    const over = thumbs.find(([, [tx, ty]]) => Math.abs(tx - x) <= side / 2 && Math.abs(ty - y) <= side / 2);
    if (over) return over[0];
    let [best, least] = [-1, reach];
    for (let index = 0; index < (this.points?.ids.length ?? 0); index += 1) {
      const [px, py] = this.pixel(index);
      const distance = Math.hypot(px - x, py - y);
      if (distance < least) [best, least] = [index, distance];
    }
    return best;
  },

  setNear(index) {
    if (this.near === index) return;
    this.near = index;
    this.canvas.style.cursor = index < 0 ? '' : 'pointer';
    this.nameSoon();
    this.draw();
  },

  nameSoon: debounce(200, () => map.showName()),

  async showName() {
    const signal = this.latestName.next();
    const id = this.points?.ids[this.near];
    let name = id ? this.names.get(id) : '';
    if (id && name === undefined) {
      try {
        ({ name } = await call('GET', `/v1/items/${id}`, { signal }));
        this.names.set(id, name);
      } catch (error) {
        if (!isAbort(error) && !(error instanceof ServerError)) throw error;
        return;
      }
    }
    $('map-name').textContent = name;
  },

  pointed(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) { if (event.pointerType === 'mouse') this.setNear(this.nearest(event.offsetX, event.offsetY, 14)); return; }
    const now = { x: event.offsetX, y: event.offsetY };
    if (this.pointers.size === 1) {
      if (!this.moved && Math.hypot(now.x - before.x, now.y - before.y) < 4) return;
      this.moved = true;
      this.pan(before.x - now.x, before.y - now.y);
    } else {
      const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      const spread = (place) => Math.max(Math.hypot(place.x - other.x, place.y - other.y), 10);
      this.zoomBy(spread(now) / spread(before), [(now.x + other.x) / 2, (now.y + other.y) / 2]);
      this.pan((before.x - now.x) / 2, (before.y - now.y) / 2);
    }
    this.pointers.set(event.pointerId, now);
  },

  pan(dx, dy) {
    this.at = [clamp(this.at[0] + dx / (this.scale[0] * this.zoom), 0, 1), clamp(this.at[1] + dy / (this.scale[1] * this.zoom), 0, 1)];
    this.draw();
    if (this.isList) this.fillListSoon();
  },

  /** Zoom about a pixel, the middle by default. */
  zoomBy(factor, [x, y] = [this.width / 2, this.height / 2]) {
    const most = Math.max(4, Math.sqrt(this.points?.ids.length ?? 0) / 2); // then a handful is in sight
    const zoom = clamp(this.zoom * factor, 1, most);
    const [dx, dy] = [x - this.width / 2, y - this.height / 2];
    const grown = zoom / this.zoom - 1;
    this.zoom = zoom;
    this.pan(dx * grown, dy * grown);
    if (zoom === 1) this.at = [0.5, 0.5];
  },

  fit() {
    Object.assign(this, { zoom: 1, at: [0.5, 0.5] });
    this.pan(0, 0);
  },

  openAt(x, y) {
    const index = this.nearest(x, y, 14);
    if (index >= 0) { this.setNear(index); panel.open({ id: this.points.ids[index] }, { focus: isNarrow() }); }
  },

  keydown(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.points) return;
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (by) this.pan(by[0] * this.width / 8, by[1] * this.height / 8);
    else if (event.key === '+' || event.key === '=') this.zoomBy(1.5);
    else if (event.key === '-') this.zoomBy(1 / 1.5);
    else if (event.key === '0' || event.key === 'Home') this.fit();
    else if (event.key === 'Enter' && this.near >= 0) panel.open({ id: this.points.ids[this.near] }, { focus: true });
    else return;
    event.preventDefault();
  },

  toggleList() {
    this.isList = !this.isList;
    $('map-as-list').setAttribute('aria-pressed', this.isList);
    $('map-box').hidden = this.isList;
    $('map-list-box').hidden = !this.isList;
    for (const id of ['map-in', 'map-out', 'map-fit']) $(id).hidden = this.isList;
    this.relabel();
    if (!this.isList) this.resize();
  },

  fillListSoon: debounce(200, () => map.fillList()),

  /** The alternative to the canvas: what lies nearest to the middle. */
  async fillList() {
    if (!this.points) return;
    const signal = this.latestList.next();
    const { ids, x, y } = this.points;
    const distance = (index) => Math.hypot(x[index] - this.at[0], y[index] - this.at[1]);
    const near = ids.map((_, index) => index).sort((one, other) => distance(one) - distance(other)).slice(0, LIST_LENGTH).map((index) => ids[index]);
    if (!near.length) { $('map-list').replaceChildren(); return; }
    await attempt(async () => {
      const filter = encodeURIComponent(JSON.stringify({ id: { in: near } }));
      const answer = await call('GET', `/v1/items?limit=${LIST_LENGTH}&filter=${filter}`, { signal });
      const items = new Map(answer.data.map((item) => [item.id, item]));
      const rows = near.filter((id) => items.has(id)).map((id) => mapRow(items.get(id)));
      $('map-list').replaceChildren(...rows);
      $('map-list').setAttribute('aria-label', t('mapListNote', number(rows.length)));
    });
  },
};

function mapRow(item) {
  const image = h('img', { alt: '', loading: 'lazy' });
  showPicture(image, thumbnail(item, 72));
  return h('li', {}, h('button', { type: 'button', class: 'map-row', onclick: () => panel.open(item, { focus: true }) }, image, h('span', {}, item.name)));
}

/* --------------------------------------------------------------------------------------------------- indexing ---- */

const OFTEN = 1000;
const SELDOM = 10000;

/** How far the server is with reading folders. */
const indexing = {
  body: null, timer: 0,

  get canStart() { return Boolean(this.body?.can_start) && session.isAdmin && this.body.state !== 'running'; },

  start() {
    $('menu-index').addEventListener('click', () => { $('menu').hidePopover(); this.begin(); });
    $('indexing-stop').addEventListener('click', () => attempt(async () => this.took(await call('DELETE', '/v1/indexing'))));
    document.addEventListener('visibilitychange', () => { if (!document.hidden) this.poll(); });
    this.poll();
  },

  async poll() {
    clearTimeout(this.timer);
    if (document.hidden) return;
    try {
      this.took(await call('GET', '/v1/indexing'));
    } catch (error) {
      if (!(error instanceof ServerError)) throw error; // the next poll may fare better
    }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.poll(), this.body?.state === 'running' ? OFTEN : SELDOM);
  },

  async begin() {
    await attempt(async () => this.took(await call('POST', '/v1/indexing', { body: { paths: ['.'] } })));
    this.poll();
  },

  took(body) {
    const before = this.body;
    this.body = body;
    this.render();
    if (before?.state === 'running' && body.state !== 'running') this.ended();
    else if (body.state === 'running' && before?.done !== body.done && wall.list?.total === 0) wall.list.refresh();
    if (before?.can_start !== body.can_start && wall.list) showState();
  },

  ended() {
    const { state, added, updated, removed, rejected } = this.body;
    if (state === 'done') toast(t('indexDone', ...[added, updated, removed, rejected].map(number)));
    else toast(state === 'failed' ? `${t('indexFailed')} ${this.body.problem ?? ''}` : t('indexCanceled'), state === 'failed' ? 'bad' : 'plain');
    collectionChanged();
  },

  render() {
    const { body } = this;
    const isRunning = body?.state === 'running';
    $('indexing').hidden = !isRunning;
    $('menu-index').hidden = !this.canStart;
    if (!isRunning) return;
    $('indexing-text').textContent = t('indexingAt', number(body.done), body.total ? number(body.total) : '');
    $('indexing-stop').hidden = !session.isAdmin;
    if (body.total) { $('indexing-bar').max = body.total; $('indexing-bar').value = body.done; }
    else $('indexing-bar').removeAttribute('value');
  },
};

/* ------------------------------------------------------------------------------------------- dialogs and keys ---- */

/**
 * Ask before something is done, or for a short text.
 * @returns {Promise<string | boolean | null>} the text, or true; null when it was canceled
 */
function ask({ title, detail = '', label = '', value = '', yes, danger = false, longest = 64, pattern = '' }) {
  const dialog = $('ask');
  const input = $('ask-input');
  const opener = document.activeElement;
  $('ask-title').textContent = title;
  $('ask-detail').textContent = detail;
  $('ask-detail').hidden = !detail;
  $('ask-field').hidden = !label;
  $('ask-label').textContent = label;
  Object.assign(input, { value, maxLength: longest, required: Boolean(label), pattern: pattern || '.*' });
  $('ask-yes').textContent = yes;
  $('ask-yes').classList.toggle('danger', danger);
  dialog.returnValue = '';
  dialog.showModal();
  if (label) input.select();
  else $('ask-yes').focus();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      if (opener?.isConnected) opener.focus({ preventScroll: true });
      resolve(dialog.returnValue !== 'yes' ? null : label ? input.value.trim() : true);
    }, { once: true });
  });
}

function showKeys() {
  const rows = t('keyList').flatMap(([keys, text]) => [h('dt', {}, ...keys.split(' ').map((key) => h('kbd', {}, key))), h('dd', {}, text)]);
  $('keys-list').replaceChildren(...rows);
  $('single-keys').checked = preferences.singleKeys;
  $('keys').showModal();
}

function isTyping(target) {
  return target.closest?.('textarea, select, [contenteditable]') || (target.matches?.('input') && !['radio', 'checkbox', 'range', 'button'].includes(target.type));
}

function globalKeydown(event) {
  if (event.defaultPrevented || event.isComposing || document.querySelector('dialog[open]')) return;
  if (event.key === 'Escape' && !$('panel').hidden && !$('menu').matches(':popover-open')) { panel.close(); return; }
  if (isTyping(event.target) || event.ctrlKey || event.metaKey || event.altKey || !preferences.singleKeys) return;
  const views = { 1: 'wall', 2: 'labels', 3: 'map' };
  if (event.key === '/') $('search-input').focus();
  else if (event.key === '?') showKeys();
  else if (event.key in views) go(views[event.key], { push: true });
  else return;
  event.preventDefault();
}

function startMenu() {
  $('ask-no').addEventListener('click', () => $('ask').close('')); // no submit button, or Enter would press it
  $('menu-keys').addEventListener('click', () => { $('menu').hidePopover(); showKeys(); });
  $('single-keys').addEventListener('change', () => preferences.set('singleKeys', $('single-keys').checked));
  for (const input of document.querySelectorAll('.menu input')) {
    input.checked = preferences[input.name] === input.value;
    input.addEventListener('change', () => {
      preferences.set(input.name, input.value);
      if (input.name === 'language') applyLanguage();
      else applyTheme();
    });
  }
  $('menu').addEventListener('toggle', async (event) => {
    if (event.newState !== 'open' || $('menu-model').textContent) return;
    const answer = await attempt(() => call('GET', '/v1/models'));
    const [model] = answer?.data ?? [];
    if (model) $('menu-model').textContent = t('model', model.id, model.embedding_size, model.engine);
  });
}

/* ---------------------------------------------------------------------------------------------------- address ---- */

const VIEWS = ['wall', 'labels', 'map'];
let view = 'wall';

/** Switch to a view. */
function go(name, { push = false } = {}) {
  show(name);
  writeAddress({ push });
}

function show(name) {
  view = name;
  for (const one of VIEWS) $(`view-${one}`).hidden = one !== name;
  for (const anchor of document.querySelectorAll('nav [data-view]')) {
    if (anchor.dataset.view === name) anchor.setAttribute('aria-current', 'page');
    else anchor.removeAttribute('aria-current');
  }
  $('size-box').hidden = name !== 'wall';
  showCount();
  if (name === 'wall') wall.back();
  else if (name === 'labels') board.show();
  else map.show();
}

/** The address holds the view, the open picture and what is looked for, but for pictures of one's own. */
function writeAddress({ push = false } = {}) {
  const values = new URLSearchParams();
  const parts = query.parts.filter((part) => !part.image && !part.bin).map(({ preview, key, ...part }) => part);
  if (parts.length) values.set('query', JSON.stringify(parts));
  if (panel.item) values.set('item', panel.item.id);
  const address = `#/${view}${values.size ? `?${values}` : ''}`;
  const state = { keys: query.parts.map((part) => part.key), visit };
  if (push && address !== location.hash) history.pushState(state, '', address);
  else history.replaceState(state, '', address);
}

const visit = Math.random(); // keys of parts mean something only until the page is left

function readAddress() {
  const [path, text] = location.hash.replace(/^#\/?/, '').split('?');
  const values = new URLSearchParams(text);
  let parts = [];
  try {
    parts = JSON.parse(values.get('query') ?? '[]').map(asPart).filter(Boolean);
  } catch { /* somebody has changed the address */ }
  const { state } = history;
  if (state?.visit === visit && state.keys.every((key) => query.known.has(key))) parts = state.keys.map((key) => query.known.get(key));
  const item = values.get('item');
  return { view: VIEWS.includes(path) ? path : 'wall', item: ITEM_ID.test(item) ? item : null, parts };
}

const ITEM_ID = /^[0-9a-f]{32}$/;

/** What an address says → a part of a query, or null if it makes no sense. */
function asPart({ text, item, name, modified, region, weight, filter }) {
  const key = ++lastPart;
  if (typeof filter?.field === 'string') return { key, filter };
  if (!Number.isFinite(weight)) return null;
  if (typeof text === 'string') return { key, text, weight };
  const isRegion = Array.isArray(region) && region.length === 4 && region.every(Number.isFinite);
  return ITEM_ID.test(item) ? { key, item, name, modified, weight, region: isRegion ? region : null } : null;
}

function followAddress() {
  const { view: name, item, parts } = readAddress();
  const isSame = wall.list && parts.length === query.parts.length && parts.every((part, index) => part.key === query.parts[index].key);
  if (!isSame) query.set(parts, { remember: false });
  if (name !== view || !isSame) show(name);
  if (!item) panel.close({ remember: false });
  else if (item !== panel.item?.id) panel.open(wall.list.get(wall.list.placeOf(item)) ?? { id: item }, { remember: false });
}

/* ------------------------------------------------------------------------------------------------------ start ---- */

function startViews() {
  for (const anchor of document.querySelectorAll('a[data-view]')) {
    anchor.addEventListener('click', (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      if (anchor.closest('.brand') && !query.isEmpty) query.set([]);
      go(anchor.dataset.view, { push: true });
    });
  }
  $('tile-size').value = preferences.tile;
  $('tile-size').addEventListener('input', () => { preferences.set('tile', Number($('tile-size').value)); wall.layout(); });
  $('banner-now').addEventListener('click', () => link.resume());
  document.querySelector('.skip').addEventListener('click', (event) => { event.preventDefault(); $('main').focus(); });
  addEventListener('popstate', followAddress);
  addEventListener('keydown', globalKeydown);
  matchMedia('(max-width: 859px)').addEventListener('change', () => panel.modal());
}

async function start() {
  preferences.load();
  for (const part of [session, wall, query, tray, dropping, board, map]) part.start();
  startMenu();
  startViews();
  applyTheme();
  document.documentElement.lang = preferences.language;
  translate(document);
  query.render();
  board.renderForm();
  await attempt(() => session.load());
  session.render();
  followAddress();
  indexing.start();
}

start();
