// Prints the results of netty's LineBasedFrameDecoder for a sequence of reads, and of LineEncoder for
// a line. tests/peers/mod.rs describes the input and the output.

import io.netty.buffer.ByteBuf;
import io.netty.buffer.ByteBufUtil;
import io.netty.buffer.Unpooled;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInboundHandlerAdapter;
import io.netty.channel.embedded.EmbeddedChannel;
import io.netty.handler.codec.LineBasedFrameDecoder;
import io.netty.handler.codec.TooLongFrameException;
import io.netty.handler.codec.string.LineEncoder;
import io.netty.handler.codec.string.LineSeparator;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

public class NettyLines {
    // Netty has no default limit. Rows without a limit use the default of the other readers.
    static final int DEFAULT_LIMIT = 65536;

    static class Decoder extends LineBasedFrameDecoder {
        Decoder(int maxLength) {
            super(maxLength);
        }

        int held() {
            return actualReadableBytes();
        }
    }

    static class Recorder extends ChannelInboundHandlerAdapter {
        final List<String> events = new ArrayList<>();

        @Override
        public void channelRead(ChannelHandlerContext context, Object message) {
            ByteBuf line = (ByteBuf) message;
            events.add("line=" + ByteBufUtil.hexDump(line));
            line.release();
        }

        @Override
        public void exceptionCaught(ChannelHandlerContext context, Throwable cause) {
            events.add(cause instanceof TooLongFrameException ? "error" : cause.toString().replace(' ', '_'));
        }
    }

    static List<String> read(String limit, String[] words) {
        Decoder decoder = new Decoder(limit.equals("-") ? DEFAULT_LIMIT : Integer.parseInt(limit));
        Recorder recorder = new Recorder();
        EmbeddedChannel channel = new EmbeddedChannel(decoder, recorder);
        for (int i = 2; i < words.length; i++) {
            channel.writeInbound(Unpooled.wrappedBuffer(ByteBufUtil.decodeHexDump(words[i])));
        }
        recorder.events.add("held=" + decoder.held());
        recorder.events.add("eof");
        channel.finish();
        return recorder.events;
    }

    static List<String> write(String line) {
        EmbeddedChannel channel =
                new EmbeddedChannel(new LineEncoder(LineSeparator.UNIX, StandardCharsets.ISO_8859_1));
        channel.writeOutbound(new String(ByteBufUtil.decodeHexDump(line), StandardCharsets.ISO_8859_1));
        List<String> events = new ArrayList<>();
        for (ByteBuf out = channel.readOutbound(); out != null; out = channel.readOutbound()) {
            events.add("wrote=" + ByteBufUtil.hexDump(out));
            out.release();
        }
        return events;
    }

    public static void main(String[] args) throws Exception {
        BufferedReader rows = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        for (String row = rows.readLine(); row != null; row = rows.readLine()) {
            String[] words = row.split(" ");
            List<String> events = List.of("-");
            if (words[0].equals("read")) {
                events = read(words[1], words);
            } else if (words[0].equals("write")) {
                events = write(words[1]);
            }
            System.out.println(String.join(" ", events));
        }
    }
}
