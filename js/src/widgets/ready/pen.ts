/** A pen on a canvas: turns mouse, touch and keyboard input into pieces of strokes, and draws pieces. */

/** A part of a stroke. */
export interface Piece {
  readonly colour: string;
  readonly width: number;
  /** x, y, x, y, … in units of the board. */
  readonly points: readonly number[];
}

export interface Point {
  x: number;
  y: number;
}

/** The number of points of a piece. The whole piece is written again as it grows, so it must stay small. */
const PIECE = 48;
/** The minimal distance between two points. */
const STEP = 3;

export class Pen {
  colour = "#1f1f1f";
  stroke = 5;
  /** Called when the pen is put down. */
  onDown: () => void = () => undefined;
  /** Called with all points of the `nth` piece of the present stroke when it grows. */
  onPiece: (nth: number, points: readonly number[]) => void = () => undefined;
  /** Called with the position of the pen; null when it leaves the board. */
  onMove: (at: Point | null) => void = () => undefined;
  readonly #canvas: HTMLCanvasElement;
  readonly #size: { readonly width: number; readonly height: number };
  /** The points of the present piece; null while the pen is up. */
  #points: number[] | null = null;
  #nth = 0;
  /** The position of the keyboard's pen. */
  readonly #at: Point;

  constructor(canvas: HTMLCanvasElement, size: { readonly width: number; readonly height: number }) {
    this.#canvas = canvas;
    this.#size = size;
    this.#at = { x: size.width / 2, y: size.height / 2 };
    [canvas.width, canvas.height] = [size.width, size.height];
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      this.#down(this.#where(event));
    });
    canvas.addEventListener("pointermove", (event) => {
      // Several points may fall between two frames.
      const all = this.#points && "getCoalescedEvents" in event ? event.getCoalescedEvents() : [];
      for (const each of all.length > 0 ? all : [event]) this.#move(this.#where(each));
    });
    canvas.addEventListener("pointerup", () => this.#up());
    canvas.addEventListener("pointercancel", () => this.#up());
    canvas.addEventListener("pointerleave", () => this.onMove(null));
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => {
      this.#up();
      this.onMove(null);
    });
  }

  draw(pieces: readonly Piece[]): void {
    const context = this.#canvas.getContext("2d");
    if (!context) return;
    context.fillStyle = "#fff";
    context.fillRect(0, 0, this.#size.width, this.#size.height);
    context.lineCap = context.lineJoin = "round";
    for (const { colour, width, points } of pieces) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.beginPath();
      context.moveTo(points[0] ?? 0, points[1] ?? 0);
      // A smooth curve through the midpoints of the measured points.
      for (let i = 2; i + 3 < points.length; i += 2) {
        const [x = 0, y = 0, nextX = 0, nextY = 0] = points.slice(i, i + 4);
        context.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
      }
      context.lineTo(points.at(-2) ?? 0, points.at(-1) ?? 0);
      context.stroke();
    }
  }

  #where(event: MouseEvent): Point {
    const box = this.#canvas.getBoundingClientRect();
    const { width, height } = this.#size;
    return {
      x: Math.min(width, Math.max(0, Math.round(((event.clientX - box.left) / box.width) * width))),
      y: Math.min(height, Math.max(0, Math.round(((event.clientY - box.top) / box.height) * height))),
    };
  }

  #down({ x, y }: Point): void {
    this.#nth = 0;
    this.#points = [x, y];
    this.onDown();
    this.onPiece(0, this.#points.slice());
  }

  #move(at: Point): void {
    this.onMove(at);
    const points = this.#points;
    if (!points || Math.hypot(at.x - (points.at(-2) ?? 0), at.y - (points.at(-1) ?? 0)) < STEP) return;
    points.push(at.x, at.y);
    this.onPiece(this.#nth, points.slice());
    if (points.length < 2 * PIECE) return;
    this.#nth += 1;
    this.#points = [at.x, at.y];
  }

  #up(): void {
    this.#points = null;
  }

  #key(event: KeyboardEvent): void {
    const step = event.shiftKey ? 100 : 20;
    const moves: Partial<Record<string, [number, number]>> = {
      ArrowLeft: [-step, 0],
      ArrowRight: [step, 0],
      ArrowUp: [0, -step],
      ArrowDown: [0, step],
    };
    const move = moves[event.key];
    if (!move && event.key !== " ") return;
    event.preventDefault();
    event.stopPropagation();
    if (!move) return this.#points ? this.#up() : this.#down(this.#at);
    this.#at.x = Math.min(this.#size.width, Math.max(0, this.#at.x + move[0]));
    this.#at.y = Math.min(this.#size.height, Math.max(0, this.#at.y + move[1]));
    this.#move({ ...this.#at });
  }
}
